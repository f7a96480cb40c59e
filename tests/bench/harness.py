"""What every measurement needs: a raw floor, the processes under measurement, meters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

CONNECTIONS = 10
INSERT = "insert into public.raw_floor values ($1, $2, $3)"
READY = (
    "select (select count(*) from df._worker_epoch) >= $1 "
    "and exists (select from pgflows.base_urls)"
)
NOTHING_LEFT = "select not exists (select from df._work)"
ORDER = json.dumps({"order_id": "ORD-1", "amount": 99.0})
WORKFLOW = "process_order"


@dataclass
class Usage:
    """What the server and our processes used between two looks: CPU seconds, WAL bytes, commits."""

    python: float
    postgres: float
    wal: int
    commits: int


class Meter:
    def __init__(self, conn: asyncpg.Connection[Any], postmaster: int, ours: list[int]) -> None:
        self._conn = conn
        self._postmaster = psutil.Process(postmaster)
        self._ours = [psutil.Process(p) for p in ours]

    @staticmethod
    def _cpu(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        return max(p.memory_info().rss for p in self._ours) / 1e6

    async def usage(self) -> Usage:
        """Statistics of backends reach the collector with a second's delay, so this takes one."""
        await asyncio.sleep(1.1)
        servers = [self._postmaster, *self._postmaster.children()]
        [row] = await self._conn.fetch(
            "select pg_current_wal_insert_lsn() - '0/0' as wal, xact_commit as commits "
            "from pg_stat_database where datname = current_database()"
        )
        return Usage(
            sum(self._cpu(p) for p in self._ours),
            sum(self._cpu(p) for p in servers),
            int(row["wal"]),
            int(row["commits"]),
        )


Ten: TypeAlias = "list[asyncpg.Connection[Any]]"


@asynccontextmanager
async def connections(dsn: str) -> AsyncIterator[Ten]:
    """What starts workflows, and writes the raw floor's rows: open before anything is timed."""
    ten = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
    await ten[0].execute(
        "create table if not exists public.raw_floor (id int, step int, data jsonb)"
    )
    yield ten
    for conn in ten:
        await conn.close()


async def reported(ten: Ten) -> None:
    """What these sessions did is in the statistics now, not with somebody's next statement."""
    for conn in ten:
        await conn.execute("select pg_stat_force_next_flush()")


async def raw_floor(ten: Ten, workflows: int) -> float:
    """Workflows per second of five own commits each, over ten connections."""

    async def five(conn: asyncpg.Connection[Any]) -> None:
        for step in range(5):
            await conn.execute(INSERT, 1, step, ORDER)

    began = time.perf_counter()
    await at_once(ten, workflows, five)
    seconds = time.perf_counter() - began
    await ten[0].execute("truncate public.raw_floor")
    return workflows / seconds


async def at_once(ten: Ten, number: int, work: Callable[[Any], Awaitable[Any]]) -> None:
    """`work(connection)` so many times over ten connections."""
    left = iter(range(number))

    async def drain(conn: asyncpg.Connection[Any]) -> None:
        for _ in left:
            await work(conn)

    await asyncio.gather(*map(drain, ten))


async def until_true(conn: asyncpg.Connection[Any], query: str, *args: object) -> None:
    """Waits for a query of the database to answer true."""
    while not await conn.fetchval(query, *args):  # noqa: ASYNC110 - other processes work
        await asyncio.sleep(0.005)


@asynccontextmanager
async def deployment(dsn: str, *commands: str, port: int = 8791) -> AsyncIterator[list[int]]:
    """The processes under measurement (`pgflows` and these words), ready to work; their pids."""
    environment = os.environ | {"PGFLOWS_DSN": dsn, "PGFLOWS_PORT": str(port)}
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pgflows", *c.split(), env=environment
        )
        for c in commands
    ]
    engines = sum(c in ("engine", "serve") for c in commands)
    try:
        conn = await asyncpg.connect(dsn)
        async with asyncio.timeout(30):
            await until_true(conn, READY, engines)
        await conn.close()
        yield [c.pid for c in children]
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            await child.wait()


TWO = ("serve --no-engine", "engine")


def report(rounds: list[Any], title: str) -> None:
    """Median, least and most of each figure of some rounds."""
    table = Table("figure", "median", "min", "max", title=title)
    for name in asdict(rounds[0]):
        values = [float(getattr(r, name)) for r in rounds]
        table.add_row(
            name, *(f"{v:,.2f}" for v in (statistics.median(values), min(values), max(values)))
        )
    Console(width=100).print(table)
