"""`pgflows demo`: five hundred workflows over real flight data, with kills, and the count.

It starts a throw-away PostgreSQL, the step service and an engine, each as a process. While the runs
are under way it kills the service twice and the engine once with SIGKILL, and starts each again.
"""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pgflows.config import Settings
from pgflows.database.connections import Connection, connect
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from pgflows.errors import SetupError

WORKFLOW = "compensate_delay"
LATE_MINUTES = 60
KILLS = ((0.15, "service"), (0.40, "engine"), (0.65, "service"))
PATIENCE_SECONDS = 120.0
KNOWN = "select exists (select from pgflows.workflows where name = $1)"

commands = typer.Typer()
console = Console(soft_wrap=True)


@commands.command()
def demo(
    workflows: Annotated[int, typer.Option(min=10, max=5000, help="How many to run")] = 500,
    flights: Annotated[Path, typer.Option(help="The flight data")] = Path(
        "examples/flights/flights.csv"
    ),
) -> None:
    """Five hundred workflows with kills in between; exit code 1 if a step is lost or doubled."""
    outcome = asyncio.run(run_demo(flights, workflows))
    show(outcome)
    if not outcome.ok:
        raise typer.Exit(1)


@dataclass
class Outcome:
    """What the demo counted. `recorded_twice` and `lost` must be 0."""

    started: int = 0
    completed: int = 0
    steps: int = 0
    run_again: int = 0
    recorded_twice: int = 0
    lost: int = 0
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        whole = self.completed == self.started > 0 and len(self.kills) == len(KILLS)
        return whole and self.recorded_twice == 0 and self.lost == 0


class Child:
    """A pgflows process that can be killed and started again."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pgflows", *self._arguments, env=self._environment
        )

    async def stop(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()


def delayed_flights(path: Path, most: int) -> list[dict[str, Any]]:
    """Flights of the file that arrived an hour late or more, as inputs of the workflow."""
    if not path.exists():
        raise SetupError(
            f"{path} is missing: run the demo in a checkout of pgflows, or give --flights"
        )
    with path.open(newline="") as file:
        rows = [
            r
            for r in csv.DictReader(file)
            if r["arr_delay"] and float(r["arr_delay"]) >= LATE_MINUTES
        ]
    return [
        {
            "carrier": r["carrier"],
            "flight": int(r["flight"]),
            "origin": r["origin"],
            "dest": r["dest"],
            "flight_date": f"{int(r['year']):04}-{int(r['month']):02}-{int(r['day']):02}",
            "arr_delay": int(r["arr_delay"]),
            "distance": int(r["distance"]),
        }
        for r in rows[:most]
    ]


@asynccontextmanager
async def _children(dsn: str) -> AsyncIterator[dict[str, Child]]:
    port = _free_port()
    environment = os.environ | {"PGFLOWS_DSN": dsn, "PGFLOWS_PORT": str(port)}
    children = {
        "service": Child("service", ["serve", "--no-engine"], environment),
        "engine": Child("engine", ["engine"], environment),
    }
    try:
        for child in children.values():
            await child.start()
        yield children
    finally:
        for child in children.values():
            await child.stop(signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def run_demo(flights: Path, most: int) -> Outcome:
    """Raises SetupError where the demo cannot begin; returns what was counted."""
    inputs = delayed_flights(flights, most)
    outcome = Outcome()
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pgflows-demo-"))
        server = EmbeddedServer(Path(directory))
        dsn = await asyncio.to_thread(server.start)
        stack.callback(server.stop)
        await migrate(dsn, Settings(dsn=dsn))
        children = await stack.enter_async_context(_children(dsn))
        conn = await connect(dsn)
        stack.push_async_callback(conn.close)
        await _wait_for_workflow(conn)
        starter = asyncio.create_task(_start(dsn, inputs, outcome))
        await _watch(conn, children, outcome, len(inputs))
        await starter
        await _count(conn, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


async def _start(dsn: str, inputs: list[dict[str, Any]], outcome: Outcome) -> None:
    """Starts the runs one by one, each in a transaction of its own."""
    conn = await connect(dsn)
    try:
        for one in inputs:
            await conn.execute("select pgflows.start($1, $2)", WORKFLOW, one)
            outcome.started += 1
    finally:
        await conn.close()


async def _wait_for_workflow(conn: Connection) -> None:
    async with asyncio.timeout(30):
        while not await conn.fetchval(KNOWN, WORKFLOW):  # noqa: ASYNC110 - another process registers it
            await asyncio.sleep(0.1)


async def _watch(
    conn: Connection,
    children: dict[str, Child],
    outcome: Outcome,
    total: int,
) -> None:
    """Shows progress and kills at the planned shares of it."""
    plan = list(KILLS)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("workflows", total=total)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            done = await conn.fetchval(
                "select count(*) from pgflows.instances where ended_at is not null"
            )
            progress.update(bar, completed=done)
            if plan and done >= plan[0][0] * total:
                child = children[plan.pop(0)[1]]
                await child.stop(signal.SIGKILL)
                outcome.kills.append(child.name)
                progress.console.print(f"[bold red]kill -9[/] {child.name} at {done} workflows")
                await child.start()
            if done >= total:
                return
            await asyncio.sleep(0.02)


async def _count(conn: Connection, outcome: Outcome) -> None:
    (row,) = await conn.fetch("select * from pgflows.audit($1)", WORKFLOW)
    outcome.completed = row["completed"]
    outcome.steps = row["steps"]
    outcome.run_again = row["run_again"]
    outcome.recorded_twice = row["recorded_twice"]
    outcome.lost = row["lost"]


def show(outcome: Outcome) -> None:
    table = Table(title="pgflows demo: delay compensation", show_header=False)
    kills = ", ".join(outcome.kills) or "none"
    for name, value in (
        ("workflows started", outcome.started),
        ("workflows completed", outcome.completed),
        ("steps run", outcome.steps),
        ("steps run again because their process died", outcome.run_again),
        ("steps recorded twice", outcome.recorded_twice),
        ("steps lost", outcome.lost),
        ("killed with SIGKILL", kills),
        ("wall time", f"{outcome.seconds:.1f} s"),
    ):
        table.add_row(name, str(value))
    console.print(table)
