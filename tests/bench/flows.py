"""Graphs of users' SQL nodes, which happen exactly once, and signals."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.bench.harness import (
    NOTHING_LEFT,
    TWO,
    Ten,
    at_once,
    connections,
    deployment,
    raw_floor,
    report,
    until_true,
)

THREE = (
    "select df.start(df.seq('insert into public.effects values (1)', "
    "df.seq(df.as('select 2 as x', 'a'), 'insert into public.effects values ($a)')))"
)
LOOP = (
    "select df.start(df.seq(df.as('select 0 as n', 's'), "
    "df.loop(df.as('select $s.n + 1 as n', 's'), 'select $s.n < 1000')))"
)
ENDED = "select status = 'completed' from df.instances where id = $1"
PARKED = "select not exists (select from df._work where owner is not null or wake_at < 'infinity')"
WAKE_UPS = (
    "select extract(epoch from completed_at - $2) * 1000 as ms from df.instances "
    "where id = any ($1) order by 1"
)


@dataclass
class Figures:
    raw_per_second: float
    three_nodes_per_second: float
    ratio: float
    fan_out_of_100_ms: float
    loop_of_1000_seconds: float
    signals_p50_ms: float
    signals_p99_ms: float


def tree(leaves: int) -> str:
    """JOINs over so many SQL nodes."""
    if leaves == 1:
        return "'select 1'"
    return f"df.join({tree(leaves // 2)}, {tree(leaves - leaves // 2)})"


async def seconds(conn: asyncpg.Connection[Any], start: str) -> float:
    began = time.perf_counter()
    instance = await conn.fetchval(start)
    await until_true(conn, ENDED, instance)
    return time.perf_counter() - began


async def wake_ups(ten: Ten, conn: asyncpg.Connection[Any], runs: int) -> list[float]:
    """Milliseconds from one statement that signals all runs to the end of each."""
    ids: list[str] = []

    async def start(c: asyncpg.Connection[Any]) -> None:
        ids.append(await c.fetchval("select df.start(df.wait_for_signal('go'))"))

    await at_once(ten, runs, start)
    await until_true(conn, PARKED)
    now = await conn.fetchval("select clock_timestamp()")
    await conn.execute("select df.signal(i, 'go', '{}') from unnest($1::text[]) i", ids)
    await until_true(conn, NOTHING_LEFT)
    return [float(r["ms"]) for r in await conn.fetch(WAKE_UPS, ids, now)]


async def run(dsn: str, options: argparse.Namespace) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute("create table if not exists public.effects (n integer)")
    rounds = []
    async with deployment(dsn, *TWO), connections(dsn) as ten:
        await at_once(ten, 50, lambda c: c.fetchval(THREE))
        for _ in range(options.rounds):
            raw = await raw_floor(ten, options.workflows)
            began = time.perf_counter()
            await at_once(ten, options.workflows, lambda c: c.fetchval(THREE))
            await until_true(conn, NOTHING_LEFT)
            rate = options.workflows / (time.perf_counter() - began)
            spread = [await seconds(conn, f"select df.start({tree(100)})") for _ in range(5)]
            signalled = await wake_ups(ten, conn, options.workflows)
            rounds.append(
                Figures(
                    raw,
                    rate,
                    rate / raw,
                    statistics.median(spread) * 1000,
                    await seconds(conn, LOOP),
                    statistics.median(signalled),
                    signalled[int(len(signalled) * 0.99) - 1],
                )
            )
    await conn.close()
    report(rounds, f"users' SQL nodes and {options.workflows} signals, two processes")
