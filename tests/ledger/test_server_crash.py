"""PostgreSQL crashes while a step runs: the outcome is kept, whatever the server forgot."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pgflows.config import Settings
from pgflows.context import StepContext
from pgflows.database import connections as db
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from pgflows.ledger.ledger import Ledger
from pgflows.runner.outcome import Completed
from pgflows.runner.runner import Runner
from tests.ledger.conftest import Books
from tests.ledger.steps import BASE_URL, Given, Got, Steps


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    """A server of this test's own, fsync and all."""
    binaries = os.environ.get("PGFLOWS_TEST_PG_BIN")
    with tempfile.TemporaryDirectory(prefix="pgflows-tests-") as directory:
        server = EmbeddedServer(Path(directory), binaries=Path(binaries) if binaries else None)
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop, "immediate")


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["at once", "later"])
async def test_a_step_outlives_a_crash_of_the_server(
    server: EmbeddedServer, seconds: float
) -> None:
    dsn = server.socket_dsn()
    await migrate(dsn, Settings())
    crashed = asyncio.Event()

    async def act(ctx: StepContext, input: Given) -> Got:
        if not crashed.is_set():
            crashed.set()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(server.restart, "immediate")
        return Got(text="kept")

    steps = Steps()
    steps.add(act, timeout=60)
    owner, run = await db.connect(dsn), await db.connect(server.socket_dsn("pgflows_run"))
    books = Books(owner, run, None)
    request, after = await books.ask(await books.start(), "work#1", "work#2")
    async with (
        Ledger.open(dsn, BASE_URL) as ledger,
        Runner(steps.app, ledger, Settings()) as runner,
    ):
        outcome = await runner.run_step(request)
        again = await runner.run_step(after)
    assert [type(outcome), type(again)] == [Completed, Completed]
    assert len(steps.seen) == 2
    books = Books(await db.connect(dsn), run, None)
    assert await books.attempts(request) == [(1, None)]
    assert (await books.row(request))["output"] == {"text": "kept"}
    await books.owner.close()
