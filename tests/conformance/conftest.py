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
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.engine import open_engine
from tests.conformance.corpus.peer import serving
from tests.conftest import OWNER, RUN, RUN_PASSWORD, Database, Process, free_port, until
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
        task = asyncio.create_task(engine.serve())
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


@cache
def extension() -> str | None:
    """The name of the database that the worker of pg_durable serves; None where there is none."""
    given = os.environ.get("PGFLOWS_TEST_DSN")
    return asyncio.run(_served(given)) if given else None


async def _served(admin_dsn: str) -> str | None:
    conn = await asyncpg.connect(admin_dsn)
    name: str | None = await conn.fetchval(
        "select coalesce(current_setting('pg_durable.database', true), 'postgres') "
        "from pg_available_extensions where name = 'pg_durable'"
    )
    await conn.close()
    return name


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is said to hold for the other implementation, or looks into a database of ours."""
    there = extension() is not None
    for name, here in (("ours", not there), ("extension", there)):
        marker = item.get_closest_marker(name)
        if marker is not None and not here:
            pytest.skip(f"for {name} only: {marker.args[0]}")
    if there and isinstance(item, pytest.Function) and "template" in item.fixturenames:
        pytest.skip("it needs a database with our migrations")


@pytest.fixture(scope="session")
def stage(
    server_dsn: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """One for all tests of a process: they run flows on it and leave their rows behind."""
    with serving() as peer:
        if served := extension():
            database = _served_database(server_dsn, served)
            asyncio.run(make_roles(database))
            yield Stage(database, peer)
            return
        database = _database_of_ours(server_dsn, request.getfixturevalue("template"))
        asyncio.run(make_roles(database))
        log = tmp_path_factory.mktemp("stage") / "engine.log"
        environment = {
            "PGFLOWS_DSN": database.dsn,
            "PGFLOWS_RUN_DSN": database.run_dsn,
            "PGFLOWS_HTTP_TARGETS": f"private:{peer}/,private:{NOWHERE}/",
        }
        engine = Process(("engine",), os.environ | environment, log, free_port()).start()
        yield Stage(database, peer)
        engine.kill()
        asyncio.run(_order(server_dsn, f"drop database {database.name} with (force)"))


def _served_database(admin_dsn: str, name: str) -> Database:
    """Where the extension's worker works, once it has seen that the extension is there."""
    dsn = urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{name}"))

    async def ready() -> None:
        conn = await asyncpg.connect(dsn)
        await conn.execute("create extension if not exists pg_durable")
        beat = "select last_seen_at from df._worker_epoch limit 1"
        await until(lambda: conn.fetchval(beat), 60, "the worker of pg_durable")
        await conn.close()

    asyncio.run(ready())
    return Database(name, dsn, dsn, dsn)


def _database_of_ours(admin_dsn: str, template: str) -> Database:
    name = f"stage_{template}"
    asyncio.run(_order(admin_dsn, f"drop database if exists {name} with (force)"))
    asyncio.run(_order(admin_dsn, f"create database {name} template {template} owner {OWNER}"))
    owner, run = dsn_of(admin_dsn, OWNER, name), dsn_of(admin_dsn, RUN, name, RUN_PASSWORD)
    return Database(name, owner, run, dsn_of(admin_dsn, "postgres", name))


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
