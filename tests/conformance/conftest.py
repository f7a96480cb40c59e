"""An engine beside a database, and a role that uses `df` and nothing else.

A server that has the extension pg_durable is tested as it is: its worker is the engine, and the one
database that it serves is the stage. Tests that need one of the two say so with a marker.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from pgflows.engine import open_engine
from pgflows.settings import Settings
from tests.conformance.corpus.peer import serving
from tests.conftest import OWNER, RUN, RUN_PASSWORD, Database, Process, free_port
from tests.conftest import _dsn as dsn_of

USER, OTHER = "pgflows_test_user", "pgflows_test_other"


async def make_roles(database: Database, *, include_http: bool = True) -> None:
    """Two roles that log in, the first with a schema of its own."""
    conn = await asyncpg.connect(database.admin_dsn)
    for role in (USER, OTHER):
        await conn.execute(
            f"do $$ begin create role {role} login; "
            "exception when duplicate_object or unique_violation then null; end $$"
        )
    await conn.execute(f"create schema if not exists corpus authorization {USER}")
    await conn.close()
    conn = await asyncpg.connect(database.dsn)
    await conn.execute("select df.grant_usage($1, include_http => $2)", USER, include_http)
    await conn.execute("select df.grant_usage($1)", OTHER)
    await conn.close()


@asynccontextmanager
async def running_engine(database: Database, **settings: Any) -> AsyncIterator[None]:
    """An engine in this process, until the block ends."""
    given = Settings.model_validate({"run_dsn": database.run_dsn} | settings)
    async with open_engine(given, dsn=database.dsn) as engine:
        task = asyncio.create_task(engine.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def user(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as an ordinary role with df usage, http included."""
    await make_roles(database)
    conn = await asyncpg.connect(database.as_role(USER))
    yield conn
    await conn.close()


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as a superuser."""
    conn = await asyncpg.connect(database.admin_dsn)
    yield conn
    await conn.close()


@pytest.fixture
async def other(
    database: Database, user: asyncpg.Connection[Any]
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as another ordinary role, without http."""
    conn = await asyncpg.connect(database.as_role(OTHER))
    yield conn
    await conn.close()


NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Stage:
    """A database where what is started is run, and the base URL of a peer that it may call."""

    database: Database
    peer: str


@pytest.fixture(scope="session")
def extension(server_dsn: str) -> str | None:
    """The name of the database that the worker of pg_durable serves; None where there is none."""
    return asyncio.run(_served(server_dsn))


async def _served(admin_dsn: str) -> str | None:
    conn = await asyncpg.connect(admin_dsn)
    name: str | None = await conn.fetchval(
        "select coalesce(current_setting('pg_durable.database', true), 'postgres') "
        "from pg_available_extensions where name = 'pg_durable'"
    )
    await conn.close()
    return name


@pytest.fixture(autouse=True)
def _applies(request: pytest.FixtureRequest, extension: str | None) -> None:
    """Skips what is said to hold for the other implementation only."""
    for name, applies in (("ours", extension is None), ("extension", extension is not None)):
        marker = request.node.get_closest_marker(name)
        if marker is not None and not applies:
            pytest.skip(f"for {name} only: {marker.args[0]}")


@pytest.fixture(scope="session")
def stage(
    server_dsn: str,
    extension: str | None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """One for all tests of a process: they run flows on it and leave their rows behind."""
    with serving() as peer:
        if extension is not None:
            admin_dsn = dsn_of(server_dsn, "postgres", extension)
            database = Database(extension, admin_dsn, admin_dsn, admin_dsn)
            asyncio.run(_order(admin_dsn, "create extension if not exists pg_durable"))
            asyncio.run(make_roles(database))
            yield Stage(database, peer)
            return
        template = request.getfixturevalue("template")
        name = f"stage_{template}"
        owner, run = dsn_of(server_dsn, OWNER, name), dsn_of(server_dsn, RUN, name, RUN_PASSWORD)
        database = Database(name, owner, run, dsn_of(server_dsn, "postgres", name))
        asyncio.run(_order(server_dsn, f"drop database if exists {name} with (force)"))
        asyncio.run(_order(server_dsn, f"create database {name} template {template} owner {OWNER}"))
        asyncio.run(make_roles(database))
        environment = {
            "PGFLOWS_DSN": database.dsn,
            "PGFLOWS_RUN_DSN": database.run_dsn,
            "PGFLOWS_HTTP_TARGETS": f"private:{peer}/,private:{NOWHERE}/",
        }
        log = tmp_path_factory.mktemp("stage") / "engine.log"
        engine = Process(("engine",), os.environ | environment, log, free_port()).start()
        yield Stage(database, peer)
        engine.kill()
        asyncio.run(_order(server_dsn, f"drop database {name} with (force)"))


async def _order(dsn: str, statement: str) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute(statement)
    await conn.close()


@pytest.fixture
async def actor(stage: Stage) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the stage as an ordinary role, http included."""
    conn = await asyncpg.connect(stage.database.as_role(USER))
    yield conn
    await conn.close()


@pytest.fixture
async def stranger(stage: Stage) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the stage as another ordinary role, without http."""
    conn = await asyncpg.connect(stage.database.as_role(OTHER))
    yield conn
    await conn.close()


@pytest.fixture
async def stage_admin(stage: Stage) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the stage as who may do everything with `df`."""
    conn = await asyncpg.connect(stage.database.dsn)
    yield conn
    await conn.close()
