"""A stage: a database where what is started is run. What both implementations do is run on each.

The one stage is a database of ours with an engine as a process beside it. The other is the database
that PGFLOWS_TEST_EXTENSION_DSN names, where the worker of pg_durable is the engine; it is left out
if the variable names none. A marker says which tests need the one or the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.conformance.corpus.peer import serving
from tests.conftest import (
    EXTENSION_DSN,
    ON_THE_EXTENSION,
    OWNER,
    RUN,
    RUN_PASSWORD,
    Database,
    Process,
    free_port,
    until,
)
from tests.conftest import _dsn as dsn_of
from tests.df.conftest import OTHER, USER, admin, make_roles, other, user

__all__ = ["admin", "other", "user"]  # fixtures

# what the engine of the extension writes down, for stage.until_listening
BOOKS = f"""
grant usage on schema _duroxide to {USER}, {OTHER};
grant select on _duroxide.history to {USER}, {OTHER}
"""
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Stage:
    """A database where what is started is run, and the base URL of a peer that it may call."""

    database: Database
    peer: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test on a stage runs on both stages, or on the one that its marker names."""
    if "stage" not in metafunc.fixturenames:
        return
    here, there = "ours", pytest.param("extension", marks=ON_THE_EXTENSION)
    if metafunc.definition.get_closest_marker("extension"):
        metafunc.parametrize("stage", [there], indirect=True, scope="session")
    elif EXTENSION_DSN and not metafunc.definition.get_closest_marker("ours"):
        metafunc.parametrize("stage", [here, there], indirect=True, scope="session")


@pytest.fixture(scope="session")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One for all tests of a process: they run flows on it and leave their rows behind."""
    with serving() as peer:
        if getattr(request, "param", "ours") == "extension":
            database = _database_of_the_extension()
            asyncio.run(make_roles(database))
            asyncio.run(_order(database.dsn, BOOKS))
            yield Stage(database, peer)
            return
        server_dsn = request.getfixturevalue("server_dsn")
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


def _database_of_the_extension() -> Database:
    """Where the extension's worker works, once it has seen that the extension is there."""
    assert EXTENSION_DSN is not None
    dsn = EXTENSION_DSN

    async def ready() -> None:
        conn = await asyncpg.connect(dsn)
        await conn.execute("create extension if not exists pg_durable")
        beat = "select last_seen_at from df._worker_epoch limit 1"
        await until(lambda: conn.fetchval(beat), 60, "the worker of pg_durable")
        await conn.close()

    asyncio.run(ready())
    return Database(urlsplit(dsn).path.strip("/"), dsn, dsn, dsn)


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
