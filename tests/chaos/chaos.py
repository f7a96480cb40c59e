"""`make chaos`: mixed runs while processes are killed and PostgreSQL is restarted, then the books.

usage: python -m tests.chaos.chaos [--seconds 90] [--runs 1500] [--seed N]

Two engines and a step service run on a PostgreSQL of their own. Every few seconds one of them is
killed with SIGKILL, stopped and continued, a database session is terminated, or PostgreSQL itself
is restarted, in order or as a crash. At the end every run must be terminal and right, money
conserved, no step recorded twice, nothing left behind. The seed that is printed repeats the
sequence of faults and runs.
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
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from pgflows.schema import migrate
from pgflows.server import EmbeddedServer
from pgflows.settings import Settings

ACCOUNTS, START_BALANCE = 20, 1000
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
OUTPUT = "select output from df.instance_info($1)"


class Child:
    """A pgflows process that is started again whenever it was killed."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pgflows",
                *self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    async def stop(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()

    async def keep(self) -> None:
        """Starts the process again when it ended by itself (the database was away at its start)."""
        while True:
            await asyncio.sleep(0.3)
            if self.process is not None and self.process.returncode is not None:
                await self.start()


@dataclass
class Books:
    """What was started, and what must be true of it at the end."""

    started: dict[str, str] = field(default_factory=dict)
    orders: int = 0
    moved: set[str] = field(default_factory=set)
    faults: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def check(self, good: bool, text: str) -> None:
        if not good:
            self.problems.append(text)


class World:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.random = random.Random(options.seed)  # noqa: S311 - a repeatable sequence of faults
        self.options = options
        self.directory = directory
        self.server = EmbeddedServer(directory / "pg")
        self.books = Books()
        self.children: list[Child] = []
        self.dsn = ""

    # -- the runs

    def graph(self, key: str) -> tuple[str, str]:
        """A random graph of user nodes, and its kind."""
        pick = self.random.choice(["seq", "join", "loop", "race", "signal", "sleep"])
        first = self._move(f"{key}-1")
        match pick:
            case "seq":
                return pick, f"df.seq({first}, {self._move(f'{key}-2')})"
            case "join":
                return pick, f"df.seq(df.join({first}, {self._move(f'{key}-2')}), 'select 1')"
            case "loop":
                body = "df.as('select $c.n + 1 as n', 'c')"
                loop = f"df.loop({body}, 'select $c.n < 4')"
                return pick, f"df.seq(df.as('select 0 as n', 'c'), df.seq({loop}, {first}))"
            case "race":
                return pick, f"df.seq(df.race({first}, df.sleep(600)), {self._move(f'{key}-2')})"
            case "signal":
                return pick, f"df.seq(df.wait_for_signal('go'), {first})"
            case _:
                return pick, f"df.seq(df.sleep({self.random.randint(1, 8)}), {first})"

    def _move(self, key: str) -> str:
        a, b = self.random.sample(range(1, ACCOUNTS + 1), 2)
        self._wanted.add(key)
        text = MOVE.format(key=key, a=a, b=b, n=self.random.randint(1, 9))
        return f"df.sql('{text}')"

    async def begin_runs(self) -> None:
        """Starts runs all through the faults; counts those whose start is known to be committed."""
        pace = self.options.seconds / self.options.runs
        for n in range(self.options.runs):
            try:
                await self._begin(f"r{n}")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await asyncio.sleep(0.2)
            await asyncio.sleep(pace * self.random.random())

    async def _begin(self, key: str) -> None:
        self._wanted: set[str] = set()
        conn = await asyncpg.connect(self.dsn, timeout=5)
        try:
            if self.random.random() < 0.4:
                order = json.dumps({"order_id": key, "amount": 1.0})
                await conn.execute(
                    "select pgflows.start('process_order', $1, idempotency_key => $2)", order, key
                )
                self.books.orders += 1
                return
            kind, graph = self.graph(key)
            instance = await conn.fetchval(f"select df.start({graph}, $1)", key)
            self.books.started[instance] = kind
            self.books.moved |= self._wanted
        finally:
            await conn.close(timeout=2)

    async def send_signals(self) -> None:
        sent: set[str] = set()
        while True:
            waiting = [i for i, k in self.books.started.items() if k == "signal" and i not in sent]
            for instance in waiting:
                with contextlib.suppress(
                    asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError
                ):
                    conn = await asyncpg.connect(self.dsn, timeout=5)
                    try:
                        await conn.execute("select df.signal($1, 'go', '{}')", instance)
                        sent.add(instance)
                    finally:
                        await conn.close(timeout=2)
            await asyncio.sleep(0.5)

    # -- the faults

    async def do_harm(self) -> None:
        next_restart = time.monotonic() + self.random.uniform(5, 20)
        while True:
            await asyncio.sleep(self.random.uniform(2, 5))
            if time.monotonic() > next_restart:
                next_restart = time.monotonic() + self.random.uniform(5, 40)
                await self._restart()
                continue
            await self.random.choice([self._kill, self._kill, self._pause, self._terminate])()

    def _note(self, fault: str) -> None:
        self.books.faults[fault] = self.books.faults.get(fault, 0) + 1

    async def _kill(self) -> None:
        child = self.random.choice(self.children)
        self._note(f"SIGKILL {child.name}")
        await child.stop(signal.SIGKILL)
        await child.start()

    async def _pause(self) -> None:
        """An engine stands still until others took its runs, then goes on."""
        child = self.random.choice(self.children[:2])
        if child.process is None or child.process.returncode is not None:
            return
        self._note(f"SIGSTOP {child.name}")
        process = child.process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(1, 6))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)

    async def _terminate(self) -> None:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            self._note("terminated session")
            conn = await asyncpg.connect(self.server.admin_dsn, timeout=5)
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where pid <> pg_backend_pid() and backend_type = 'client backend' "
                "order by random() limit 1"
            )
            await conn.close()

    async def _restart(self) -> None:
        mode = self.random.choice(["fast", "immediate"])
        self._note(f"PostgreSQL {mode}")
        await asyncio.to_thread(self.server.stop, mode)
        await asyncio.sleep(self.random.uniform(0, 2))
        await asyncio.to_thread(self.server.start)

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

    async def audit(self) -> None:
        books = self.books
        conn = await asyncpg.connect(self.dsn)
        states = {r[0]: r[1] for r in await conn.fetch("select id, status from df.instances")}
        for instance, kind in books.started.items():
            state = states.get(instance)
            if state != "completed":
                said = await conn.fetchval(OUTPUT, instance)
                books.check(False, f"{kind} instance {instance} is {state}: {said}")
        total = await conn.fetchval("select sum(balance) from public.accounts")
        books.check(total == ACCOUNTS * START_BALANCE, f"money was made or lost: {total}")
        moved = {r[0] for r in await conn.fetch("select id from public.transfers")}
        books.check(
            books.moved <= moved, f"transfers are missing: {sorted(books.moved - moved)[:5]}"
        )
        open_orders = await conn.fetch(
            "select * from pgflows.instances where status <> 'completed'"
        )
        books.check(
            not open_orders, f"{len(open_orders)} orders are not completed: {open_orders[:2]}"
        )
        [row] = await conn.fetch("select * from pgflows.audit('process_order')")
        books.check(
            row["recorded_twice"] == 0, f"{row['recorded_twice']} steps were recorded twice"
        )
        books.check(row["lost"] == 0, f"{row['lost']} steps were lost")
        books.check(
            row["completed"] >= books.orders, f"{row['completed']} of {books.orders} orders"
        )
        await conn.close()

    async def check_leaks(self) -> None:
        """After the processes stopped in order nothing of theirs is left."""
        conn = await asyncpg.connect(self.dsn)
        for what, query in (
            (
                "sessions",
                "select count(*) from pg_stat_activity where application_name like 'pgflows%'",
            ),
            ("advisory locks", "select count(*) from pg_locks where locktype = 'advisory'"),
            ("claims", "select count(*) from df._work where owner is not null"),
        ):
            left = await conn.fetchval(query)
            self.books.check(left == 0, f"{left} {what} were left behind")
        await conn.close()


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
        keepers = [asyncio.create_task(c.keep()) for c in world.children]
        signals = asyncio.create_task(world.send_signals())
        harm = asyncio.create_task(world.do_harm())
        await world.begin_runs()
        harm.cancel()
        await asyncio.gather(harm, return_exceptions=True)
        for child in world.children:
            if child.process is not None and child.process.returncode is None:
                child.process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(world.server.start)
        seconds = await world.settle()
        signals.cancel()
        await world.audit()
        for keeper in keepers:
            keeper.cancel()
        for child in world.children:
            await child.stop(signal.SIGTERM)
        await world.check_leaks()
        print(f"faults: {world.books.faults}")  # noqa: T201
        print(  # noqa: T201
            f"{len(world.books.started)} graphs and {world.books.orders} orders; "
            f"all terminal {seconds:.1f} s after the last fault"
        )
        if world.books.problems:
            for child in world.children:
                print(f"-- {child.name}\n{child._log.read_text(errors='replace')[-3000:]}")  # noqa: T201
        return world.books


async def _until_known(world: World) -> None:
    conn = await asyncpg.connect(world.dsn)
    async with asyncio.timeout(30):
        while not await conn.fetchval("select exists (select from pgflows.workflows)"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await conn.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--runs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    options = parser.parse_args()
    print(f"seed {options.seed}")  # noqa: T201
    books = asyncio.run(run(options))
    for problem in books.problems:
        print(f"PROBLEM: {problem}")  # noqa: T201
    print("the books are in order" if not books.problems else "the books are NOT in order")  # noqa: T201
    return 1 if books.problems else 0


if __name__ == "__main__":
    sys.exit(main())
