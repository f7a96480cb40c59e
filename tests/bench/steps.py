"""Three signed HTTP steps: throughput, latency when idle, and what a workflow costs."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.bench.harness import (
    NOTHING_LEFT,
    ORDER,
    TWO,
    WORKFLOW,
    Meter,
    Ten,
    at_once,
    connections,
    deployment,
    raw_floor,
    report,
    reported,
    until_true,
)

START = "select pgflows.start($1, $2)"
QUIET = 5.0  # seconds after which nothing is left of the load


@dataclass
class Figures:
    raw_per_second: float
    workflows_per_second: float
    ratio: float
    p50_ms: float
    p99_ms: float
    python_cpu_ms: float
    postgres_cpu_ms: float
    wal_bytes: float
    commits: float
    engine_mb: float
    idle_statements: float


async def throughput(ten: Ten, conn: asyncpg.Connection[Any], workflows: int) -> float:
    began = time.perf_counter()
    await at_once(ten, workflows, lambda c: c.fetchval(START, WORKFLOW, ORDER))
    await until_true(conn, NOTHING_LEFT)
    return workflows / (time.perf_counter() - began)


async def latencies(conn: asyncpg.Connection[Any], runs: int = 100) -> list[float]:
    """Milliseconds from the start's commit to the recorded end, one run at a time."""
    found = []
    for _ in range(runs):
        instance = await conn.fetchval(START, WORKFLOW, ORDER)
        while (  # noqa: ASYNC110 - its end is in the database
            ended := await conn.fetchval(
                "select extract(epoch from ended_at - created_at) * 1000 "
                "from pgflows.instances where instance_id = $1",
                instance,
            )
        ) is None:
            await asyncio.sleep(0.002)
        found.append(float(ended))
    return sorted(found)


async def idle_statements(conn: asyncpg.Connection[Any], seconds: float = 5.0) -> float:
    """Transactions per second of an idle deployment, this connection's own left out."""
    query = "select xact_commit from pg_stat_database where datname = current_database()"
    for _ in range(2):  # a session reports what it did with a delay, and only at its next statement
        await asyncio.sleep(1.5)
        await conn.fetchval("select 1")
    before = await conn.fetchval(query)
    await asyncio.sleep(seconds)
    return (int(await conn.fetchval(query)) - int(before) - 1) / seconds


async def measure(
    dsn: str, postmaster: int, options: argparse.Namespace, *commands: str
) -> list[Figures]:
    conn = await asyncpg.connect(dsn)
    rounds = []
    async with deployment(dsn, *commands) as pids, connections(dsn) as ten:
        meter = Meter(conn, postmaster, pids)
        await throughput(ten, conn, min(options.workflows, 200))
        for _ in range(options.rounds):
            raw = await raw_floor(ten, options.workflows)
            await reported(ten)
            before = await meter.usage()
            rate = await throughput(ten, conn, options.workflows)
            await reported(ten)
            after = await meter.usage()
            await asyncio.sleep(QUIET)
            taken = await latencies(conn)
            n = options.workflows
            rounds.append(
                Figures(
                    raw,
                    rate,
                    rate / raw,
                    statistics.median(taken),
                    taken[int(len(taken) * 0.99) - 1],
                    (after.python - before.python) * 1000 / n,
                    (after.postgres - before.postgres) * 1000 / n,
                    (after.wal - before.wal) / n,
                    (after.commits - before.commits) / n,
                    meter.memory(),
                    await idle_statements(conn),
                )
            )
    await conn.close()
    return rounds


async def run(dsn: str, postmaster: int, options: argparse.Namespace) -> None:
    """As two processes, as one, and with more engines."""
    title = f"three signed HTTP steps, {options.workflows} workflows"
    for what, commands in (
        ("service and engine as two processes", TWO),
        ("one process", ("serve",)),
        ("a service and two engines", (*TWO, "engine")),
        ("a service and four engines", (*TWO, "engine", "engine", "engine")),
    ):
        rounds = await measure(dsn, postmaster, options, *commands)
        report(rounds, f"{title}, {what}")
