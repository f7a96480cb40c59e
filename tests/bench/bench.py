"""`make bench`: workflows per second next to a raw floor, idle latency, CPU, WAL and commits.

usage: python -m tests.bench.bench [--workflows 1000] [--rounds 5] [--one-process]

The raw floor is five commits a workflow over ten connections, with nothing else around them,
measured on the same server in the same round. Everything reported is the median of the rounds.
Machines are noisy: quote the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

from pgflows.schema import migrate
from pgflows.server import EmbeddedServer
from pgflows.settings import Settings

CONNECTIONS = 10
INSERT = "insert into public.raw_floor values ($1, $2, $3)"
COMPLETED = "select count(*) from pgflows.instances where status = 'completed'"
TOOK = (
    "select extract(epoch from ended_at - created_at) * 1000 "
    "from pgflows.instances where instance_id = $1"
)
READY = "select exists (select from df._worker_epoch) and exists (select from pgflows.base_urls)"
ORDER = json.dumps({"order_id": "ORD-1", "amount": 99.0})
WORKFLOW = "process_order"


@dataclass
class Usage:
    """What the server and our processes used between two looks: CPU seconds, WAL bytes, commits."""

    python: float
    postgres: float
    wal: int
    commits: int


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


async def raw_floor(dsn: str, workflows: int) -> float:
    """Workflows per second of five own commits each, over ten connections."""
    pool = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
    table = "create table if not exists public.raw_floor (id int, step int, data jsonb)"
    await pool[0].execute(table)
    left = iter(range(workflows))

    async def work(conn: asyncpg.Connection[Any]) -> None:
        for n in left:
            for step in range(5):
                await conn.execute(INSERT, n, step, ORDER)

    began = time.perf_counter()
    await asyncio.gather(*map(work, pool))
    seconds = time.perf_counter() - began
    await pool[0].execute("drop table public.raw_floor")
    for conn in pool:
        await conn.close()
    return workflows / seconds


async def start_all(dsn: str, workflows: int) -> None:
    pool = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
    left = iter(range(workflows))

    async def work(conn: asyncpg.Connection[Any]) -> None:
        for _ in left:
            await conn.fetchval("select pgflows.start($1, $2)", WORKFLOW, ORDER)

    await asyncio.gather(*map(work, pool))
    for conn in pool:
        await conn.close()


async def finished(conn: asyncpg.Connection[Any], want: int) -> None:
    while await conn.fetchval(COMPLETED) < want:  # noqa: ASYNC110 - another process works
        await asyncio.sleep(0.02)


async def throughput(dsn: str, conn: asyncpg.Connection[Any], workflows: int) -> float:
    before = await conn.fetchval(COMPLETED)
    began = time.perf_counter()
    await start_all(dsn, workflows)
    await finished(conn, before + workflows)
    return workflows / (time.perf_counter() - began)


async def latencies(conn: asyncpg.Connection[Any], runs: int = 100) -> list[float]:
    """Milliseconds from the start's commit to the recorded end, one run at a time."""
    found = []
    for _ in range(runs):
        instance = await conn.fetchval("select pgflows.start($1, $2)", WORKFLOW, ORDER)
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


@asynccontextmanager
async def deployment(dsn: str, one_process: bool, port: int) -> AsyncIterator[list[int]]:
    """The processes under measurement, ready to work; gives their pids."""
    environment = os.environ | {"PGFLOWS_DSN": dsn, "PGFLOWS_PORT": str(port)}
    commands = [["serve"]] if one_process else [["serve", "--no-engine"], ["engine"]]
    children = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "pgflows", *c, env=environment)
        for c in commands
    ]
    try:
        conn = await asyncpg.connect(dsn)
        async with asyncio.timeout(30):
            while not await conn.fetchval(READY):  # noqa: ASYNC110 - other processes start
                await asyncio.sleep(0.1)
        await conn.close()
        yield [c.pid for c in children]
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            await child.wait()


async def measure(dsn: str, postmaster: int, options: argparse.Namespace) -> list[Figures]:
    conn = await asyncpg.connect(dsn)
    rounds = []
    async with deployment(dsn, options.one_process, 8791) as pids:
        meter = Meter(conn, postmaster, pids)
        await throughput(dsn, conn, min(options.workflows, 200))
        for _ in range(options.rounds):
            raw = await raw_floor(dsn, options.workflows)
            before = await meter.usage()
            rate = await throughput(dsn, conn, options.workflows)
            after = await meter.usage()
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


def report(rounds: list[Figures], title: str) -> None:
    table = Table("figure", "median", "min", "max", title=title)
    for name in asdict(rounds[0]):
        values = [float(getattr(r, name)) for r in rounds]
        table.add_row(
            name, *(f"{v:,.2f}" for v in (statistics.median(values), min(values), max(values)))
        )
    Console(width=100).print(table)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-process", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgflows-bench-") as directory:
        server = EmbeddedServer(Path(directory))
        dsn = server.start()
        try:
            await migrate(dsn, Settings(dsn=dsn))
            rounds = await measure(dsn, server.pid, options)
        finally:
            server.stop()
    kind = "one process" if options.one_process else "service and engine as two processes"
    report(rounds, f"three signed HTTP steps, {options.workflows} workflows, {kind}")


if __name__ == "__main__":
    asyncio.run(main())
