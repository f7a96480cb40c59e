"""Ordinary roles that use `df` and nothing else, and an engine that runs what they start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.engine import open_engine
from tests.conftest import Database

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
