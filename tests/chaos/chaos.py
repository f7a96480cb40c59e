"""`make chaos`: mixed runs while processes are killed and PostgreSQL is restarted, then the books.

usage: python -m tests.chaos.chaos [--seconds 120] [--runs 3000] [--seed N] [--every 3.5]
                                   [--recovery 5]

Two engines and a step service run on a PostgreSQL of their own, while faults.py does its worst. At
the end every run must be terminal and right, money conserved, no step recorded twice, every fault
recovered from in time, nothing left behind (audit.py). The seed that is printed repeats the
sequence of faults and of runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from tests.chaos.audit import LEAKS, Books, audit, check_leaks
from tests.chaos.children import Child
from tests.chaos.faults import AWAY, Faults

ACCOUNTS, STARTERS = 20, 4
TABLES = """
create table public.accounts (id int primary key, balance int not null);
insert into public.accounts select g, 1000 from generate_series(1, 20) g;
create table public.transfers (id text primary key, source int, target int, amount int);
create table public.marks (run text, what text);
"""
MOVE = (
    "with t as (insert into public.transfers values (''{key}'', {a}, {b}, {n}) returning 1), "
    "s as (update public.accounts set balance = balance - {n} where id = {a} returning 1), "
    "d as (update public.accounts set balance = balance + {n} where id = {b} returning 1) "
    "select (select count(*) from t) + (select count(*) from s) + (select count(*) from d) as rows"
)
SETTLE_SECONDS = 60.0
DEAF = (
    "select distinct n.instance_id from df.nodes n join df.instances i on i.id = n.instance_id "
    "where n.node_type = 'SIGNAL' and i.status in ('pending', 'running')"
)


class World:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.random = random.Random(options.seed)  # noqa: S311 - a repeatable sequence of runs
        self.options = options
        self.directory = directory
        self.server = EmbeddedServer(directory / "pg")
        self.books = Books()
        self.children: list[Child] = []
        self.dsn = ""

    # -- the runs

    def graph(self, key: str) -> tuple[str, str, set[str]]:
        """A random graph of user nodes, its kind, and the transfers that it makes."""
        pick = self.random.choice(["seq", "join", "loop", "race", "signal", "sleep"])
        one, two = self._move(f"{key}-1"), self._move(f"{key}-2")
        match pick:
            case "seq":
                graph = f"df.seq({one}, {two})"
            case "join":
                graph = f"df.seq(df.join({one}, {two}), 'select 1')"
            case "loop":
                body = "df.as('select $c.n + 1 as n', 'c')"
                loop = f"df.loop({body}, 'select $c.n < 4')"
                graph = f"df.seq(df.as('select 0 as n', 'c'), df.seq({loop}, {one}))"
            case "race":
                graph = f"df.seq(df.race({one}, df.sleep(600)), {two})"
            case "signal":
                graph = f"df.seq(df.wait_for_signal('go'), {one})"
            case _:
                graph = f"df.seq(df.sleep({self.random.randint(1, 8)}), {one})"
        keys = {f"{key}-1", f"{key}-2"} if two in graph else {f"{key}-1"}
        return pick, graph, keys

    def _move(self, key: str) -> str:
        a, b = self.random.sample(range(1, ACCOUNTS + 1), 2)
        text = MOVE.format(key=key, a=a, b=b, n=self.random.randint(1, 9))
        return f"df.sql('{text}')"

    async def begin_runs(self) -> None:
        """Starts runs all through the faults."""
        numbers = iter(range(self.options.runs))
        await asyncio.gather(*(self._starter(numbers) for _ in range(STARTERS)))

    async def _starter(self, numbers: Iterator[int]) -> None:
        pace = STARTERS * self.options.seconds / self.options.runs
        for n in numbers:
            began = time.monotonic()
            try:
                await self._begin(f"r{n}")
            except AWAY:
                await asyncio.sleep(0.1)
            await asyncio.sleep(max(0.0, pace - (time.monotonic() - began)))

    async def _begin(self, key: str) -> None:
        """Counts those whose start is known to be committed."""
        kind, graph, moves = self.graph(key)
        is_order = self.random.random() < 0.4
        conn = await asyncpg.connect(self.dsn, timeout=5)
        try:
            if is_order:
                order = json.dumps({"order_id": key, "amount": 1.0})
                await conn.execute(
                    "select pgflows.start('process_order', $1, idempotency_key => $2)", order, key
                )
                self.books.orders += 1
                return
            instance = await conn.fetchval(f"select df.start({graph}, $1)", key)
            self.books.started[instance] = kind
            self.books.moved |= moves
        finally:
            conn.terminate()

    async def send_signals(self) -> None:
        """To all who wait for one, those included whose start was never confirmed."""
        sent: set[str] = set()
        while True:
            with contextlib.suppress(*AWAY):
                conn = await asyncpg.connect(self.dsn, timeout=5)
                try:
                    for row in await conn.fetch(DEAF):
                        if row[0] not in sent:
                            await conn.execute("select df.signal($1, 'go', '{}')", row[0])
                            sent.add(row[0])
                finally:
                    conn.terminate()
            await asyncio.sleep(0.5)

    # -- the end

    async def settle(self) -> float:
        """Waits until nothing is open any more; returns the seconds that took."""
        began = time.monotonic()
        conn = await asyncpg.connect(self.dsn)
        while time.monotonic() - began < SETTLE_SECONDS:
            if not await conn.fetchval("select count(*) from df._work"):
                break
            await asyncio.sleep(0.2)
        await conn.close()
        return time.monotonic() - began


@contextlib.asynccontextmanager
async def a_world(options: argparse.Namespace) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="pgflows-chaos-") as name:
        world = World(options, Path(name))
        world.dsn = await asyncio.to_thread(world.server.start)
        try:
            await migrate(world.dsn, Settings(dsn=world.dsn))
            conn = await asyncpg.connect(world.dsn)
            await conn.execute(TABLES)
            await conn.close()
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            environment = os.environ | {"PGFLOWS_DSN": world.dsn, "PGFLOWS_PORT": str(port)}
            for n, command in enumerate((["engine"], ["engine"], ["serve", "--no-engine"])):
                label = f"{command[0]} {n + 1}" if command[0] == "engine" else "service"
                child = Child(label, command, environment, Path(name) / f"{n}.log")
                world.children.append(child)
                await child.start()
            yield world
        finally:
            for child in world.children:
                await child.stop(signal.SIGKILL)
            await asyncio.to_thread(world.server.stop, "immediate")


async def run(options: argparse.Namespace) -> Books:
    """One round of chaos; the books tell what went wrong."""
    async with a_world(options) as world:
        await _until_known(world)
        books, children = world.books, world.children
        faults = Faults(options, children, world.server, world.dsn)
        keepers = [asyncio.create_task(c.keep()) for c in children]
        others = [asyncio.create_task(c) for c in (world.send_signals(), faults.watch())]
        harm = asyncio.create_task(faults.run())
        await world.begin_runs()
        await _cancel(harm)
        await faults.end()
        seconds = await world.settle()
        await _cancel(*others)
        await audit(world.dsn, books)
        async with asyncio.timeout(SETTLE_SECONDS):
            await asyncio.gather(*(c.ready() for c in children))
        await _cancel(*keepers)
        for child in children:
            code = await child.stop(signal.SIGTERM)
            books.check(code == 0, f"{child.name} ended with {code}")
        logs = {c.name: c.output() for c in children}
        await check_leaks(world.server.admin_dsn, world.dsn, books, logs, world.directory)
        slowest = max(faults.recoveries, default=0.0)
        books.check(
            slowest <= options.recovery, f"a recovery took {slowest:.1f} s: {faults.recoveries}"
        )
        _tell(f"faults: {faults.counts}")
        _tell(f"recovered from {len(faults.recoveries)} faults, in {slowest:.1f} s at the most")
        _tell(
            f"{len(books.started)} graphs and {books.orders} orders; "
            f"all terminal {seconds:.1f} s after the last fault"
        )
        if books.problems:
            for name, text in logs.items():
                lines = text.splitlines()
                worst = [n for n, line in enumerate(lines) if LEAKS.search(line)][:3]
                _tell(f"-- {name}\n" + "\n".join(lines[-30:]))
                for n in worst:
                    _tell(f"-- {name}, line {n}\n" + "\n".join(lines[n : n + 30]))
        return books


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until_known(world: World) -> None:
    conn = await asyncpg.connect(world.dsn)
    async with asyncio.timeout(30):
        while not await conn.fetchval("select exists (select from pgflows.workflows)"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await conn.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--every", type=float, default=3.5, help="seconds between faults, about")
    parser.add_argument("--recovery", type=float, default=5.0, help="seconds it may take")
    options = parser.parse_args()
    _tell(f"seed {options.seed}")
    books = asyncio.run(run(options))
    for problem in books.problems:
        _tell(f"PROBLEM: {problem}")
    _tell("the books are in order" if not books.problems else "the books are NOT in order")
    return 1 if books.problems else 0


if __name__ == "__main__":
    sys.exit(main())
