"""A database beside which pgflows finds pg_durable: the stand-in, and, if named, the real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from tests.conftest import EXTENSION_DSN, ON_THE_EXTENSION, Database, until
from tests.conftest import _dsn as dsn_of
from tests.extension.stand_in import install, working

OWNER = "pgflows_beside"
RUN = "pgflows_run"
RUN_PASSWORD = "run-beside"  # noqa: S105 - of servers that live as long as the tests
CLEAN = (
    "select df.cancel(id) from df.instances where status in ('pending', 'running')",
    "drop schema if exists pgflows cascade",
    "drop schema if exists pgmq cascade",
)
ROLES = ((OWNER, "createrole"), (RUN, f"password '{RUN_PASSWORD}'"))
_numbers = iter(range(1_000_000))


async def make_roles(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    for role, options in ROLES:
        await conn.execute(
            f"do $$ begin if not exists (select from pg_roles where rolname = '{role}') then "
            f"create role {role} login {options}; end if; "
            "exception when duplicate_object or unique_violation then null; end $$"
        )
    await conn.execute(f"grant {RUN} to {OWNER}")


async def let_in(database: Database) -> None:
    """What a DBA grants to the owner before it migrates."""
    conn = await asyncpg.connect(database.admin_dsn)
    await conn.execute(f"grant create on database {database.name} to {OWNER}")
    await conn.execute("select df.grant_usage($1, include_http => true, with_grant => true)", OWNER)
    await conn.close()


def _database(admin: str, name: str) -> Database:
    return Database(name, dsn_of(admin, OWNER, name), dsn_of(admin, RUN, name, RUN_PASSWORD), admin)


@asynccontextmanager
async def stand_in_database(server_dsn: str) -> AsyncIterator[Database]:
    """An empty database with the stand-in in it, and nobody let in."""
    name = f"x_{os.getpid()}_{next(_numbers)}"
    conn = await asyncpg.connect(server_dsn)
    await make_roles(conn)
    await conn.execute(f"create database {name}")
    database = _database(dsn_of(server_dsn, "postgres", name), name)
    try:
        await install(database.admin_dsn)
        yield database
    finally:
        await conn.execute(f"drop database {name} with (force)")
        await conn.close()


async def real_database() -> Database:
    """The extension's own database, emptied of pgflows."""
    assert EXTENSION_DSN is not None
    conn = await asyncpg.connect(EXTENSION_DSN)
    await conn.execute("create extension if not exists pg_durable")
    beat = "select count(*) from df._worker_epoch where last_seen_at > now() - interval '15 s'"
    await until(lambda: conn.fetchval(beat), 60, "the worker of pg_durable")
    await make_roles(conn)
    for statement in CLEAN:
        await conn.execute(statement)
    name = await conn.fetchval("select current_database()")
    await conn.close()
    return _database(EXTENSION_DSN, name)


@pytest.fixture
async def stand_in(server_dsn: str) -> AsyncIterator[Database]:
    async with stand_in_database(server_dsn) as database:
        yield database


@pytest.fixture
async def real() -> Database:
    return await real_database()


@pytest.fixture(params=["stand-in", pytest.param("extension", marks=ON_THE_EXTENSION)])
async def beside(request: pytest.FixtureRequest, server_dsn: str) -> AsyncIterator[Database]:
    """A database with the extension, or its stand-in with a worker; the owner has been let in."""
    async with AsyncExitStack() as stack:
        if request.param == "extension":
            database = await real_database()
        else:
            database = await stack.enter_async_context(stand_in_database(server_dsn))
            await stack.enter_async_context(working(database.admin_dsn, database.as_role))
        await let_in(database)
        yield database
