"""Connections to PostgreSQL as pgflows wants them: JSON decoded, no reset round trip on release."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# For sessions whose statements are all our own look-ups of some rows by key: one plan for good, and
# never one that reads a whole table because it was small when the plan was made. Joins are done in
# the order that they are written in: from the keys to the rows.
BY_KEY = {
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
    "jit": "off",
}

LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a session says that is cut while a statement begins
    asyncpg.PostgresConnectionError,
    OSError,
)
CRASHED = "57P02"  # what the server tells all others when a session's process died
SHUTDOWN = ("57P01", CRASHED, "57P03", "53300", "25P03")


def is_lost(error: BaseException) -> bool:
    """True where the database went away, as against a statement that it refused."""
    if isinstance(error, ValueError):  # an argument that asyncpg cannot encode
        return False
    return isinstance(error, LOST) or getattr(error, "sqlstate", None) in SHUTDOWN


def is_unstorable(error: BaseException) -> bool:
    """True where PostgreSQL cannot hold a value, so that no repetition would help."""
    return isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError))


def dump(value: Any) -> str:
    """A JSON value as PostgreSQL gets it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def set_codecs(conn: Any) -> None:
    """json and jsonb as Python values, both ways."""
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=dump, decoder=json.loads, schema="pg_catalog")


async def connect(dsn: str, name: str = "pgflows", **settings: str) -> Connection:
    """One connection with the codecs set. `settings` are session settings of PostgreSQL."""
    conn: Connection = await asyncpg.connect(
        dsn, server_settings={"application_name": name} | settings
    )
    await set_codecs(conn)
    return conn


async def _no_reset(conn: Any) -> None:
    """Sessions of the pool are never changed, so there is nothing to reset."""


@asynccontextmanager
async def open_pool(dsn: str, *, size: int = 10) -> AsyncIterator[Pool]:
    """A pool whose connections decode JSON; closed at the end of the block."""
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        init=set_codecs,
        reset=_no_reset,
        server_settings={"application_name": "pgflows service", "search_path": "pg_catalog"},
    )
    try:
        yield pool
    finally:
        pool.terminate()
