"""Processes start where the server has no free connection for them yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.conftest import Database, Process, Spawn, until


@asynccontextmanager
async def limited(database: Database, most: int) -> AsyncIterator[asyncpg.Connection]:
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"alter database {database.name} connection limit {most}")
    try:
        yield admin
    finally:
        await admin.execute(f"alter database {database.name} connection limit -1")
        await admin.close()


async def waits(process: Process, tries: int = 2) -> None:
    async def told() -> bool:
        assert process.popen is not None
        assert process.popen.poll() is None, process.output()
        return process.output().count("the database cannot serve now") >= tries

    await until(told, 60, "a line for each try")


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_a_service_waits_for_a_free_connection_and_then_starts(
    database: Database, spawn: Spawn, most: int
) -> None:
    """The limit may be reached at any of the connections that it opens, one after another."""
    async with limited(database, most):
        service = spawn(
            "serve", "--no-engine", dsn=database.dsn, PGFLOWS_APP="tests.acceptance.deployment:app"
        )
        await waits(service)
    await asyncio.to_thread(service.wait_until_ready, 60)
    assert "Traceback" not in service.output()


async def test_an_engine_waits_for_a_free_connection_and_then_runs(
    database: Database, spawn: Spawn
) -> None:
    async with limited(database, 0):
        engine = spawn("engine", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
        await waits(engine)

    async def runs() -> bool:
        return " runs" in engine.output()

    await until(runs, 60)
    assert "Traceback" not in engine.output()


async def test_an_engine_that_gets_some_of_its_connections_only_opens_them_again(
    database: Database, spawn: Spawn
) -> None:
    async with limited(database, 3):
        engine = spawn("engine", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)

        async def refused() -> bool:
            return "too many connections" in engine.output()

        await until(refused, 60)

    async def runs() -> bool:
        return " runs" in engine.output()

    await until(runs, 60)
    assert "Traceback" not in engine.output()
