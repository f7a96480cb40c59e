"""Brings a database up to date: each migration once, the functions whenever one of them changed.

One transaction under an advisory lock does it all, so any number of processes may migrate at once.
What the role may not do is found before anything is changed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg

from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.database.migrations import run_role
from pgflows.database.migrations.rights import check_owner, check_rights
from pgflows.database.migrations.scripts import (
    BOOTSTRAP,
    Script,
    pgmq_sql,
    plan,
    wanted_scripts,
)
from pgflows.database.orchestrator import df_is_ours
from pgflows.database.roles import RUN_ROLE
from pgflows.errors import MigrationError

LOCK = 0x7067666C6F7773  # "pgflows" as a number
# Roles belong to the whole server, the lock to one database: the migration of another database may
# create the same role at the same moment.
ROLE_RACE = (
    asyncpg.DuplicateObjectError,
    asyncpg.UniqueViolationError,
    asyncpg.InternalServerError,  # "tuple concurrently updated"
)
TRIES = 5
PAUSE_SECONDS = 0.1  # between two tries


async def migrate(dsn: str, settings: Settings) -> list[str]:
    """Applies what is missing and returns the names of the scripts.

    Raises SetupError or MigrationError, having changed nothing.
    """
    conn = await db.connect(dsn, db.MIGRATION)
    try:
        for _ in range(TRIES - 1):
            with suppress(*ROLE_RACE):
                return await _migrate(conn, dsn, settings)
            await asyncio.sleep(PAUSE_SECONDS)
        return await _migrate(conn, dsn, settings)
    finally:
        await conn.close()


async def check_schema(source: Any) -> None:
    """Raises MigrationError unless the database has this version's scripts, and SetupError if they
    belong to another role.

    `source` is a pool or a connection.
    """
    ours = await df_is_ours(source)
    await check_owner(source, ours=ours)
    if await source.fetchval("select to_regclass('pgflows.migrations')") is None:
        raise MigrationError("this database is not migrated: run `pgflows migrate`")
    missing = plan(wanted_scripts(ours=ours), await _applied(source))
    if missing:
        names = ", ".join(s.name for s in missing[:3])
        raise MigrationError(f"this database lacks {names}: run `pgflows migrate`")


async def _migrate(conn: db.Connection, dsn: str, settings: Settings) -> list[str]:
    async with conn.transaction():
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        await conn.execute("set local client_min_messages = warning")
        ours = await df_is_ours(conn)
        await check_owner(conn, ours=ours)
        to_apply = plan(wanted_scripts(ours=ours), await _applied(conn))
        if not to_apply:
            return []
        await check_rights(conn, dsn, settings)
        await _prepare(conn, ours=ours)
        for script in to_apply:
            await _apply(conn, script)
        await conn.execute(f"revoke create on schema pgflows from {RUN_ROLE}")
        await conn.execute("select df.grant_usage($1, include_http => true)", RUN_ROLE)
        return [s.name for s in to_apply]


async def _applied(source: Any) -> dict[str, str]:
    """The checksum of each script that was applied."""
    if await source.fetchval("select to_regclass('pgflows.migrations')") is None:
        return {}
    rows = await source.fetch("select name, checksum from pgflows.migrations")
    return {r["name"]: r["checksum"] for r in rows}


async def _prepare(conn: db.Connection, *, ours: bool) -> None:
    """Schemas, the run role and pgmq."""
    await conn.execute(BOOTSTRAP)
    if ours:
        await conn.execute("create schema if not exists df")
    if not await run_role.exists(conn):
        await run_role.create(conn)
    await run_role.join(conn)
    await conn.execute(f"grant usage, create on schema pgflows to {RUN_ROLE}")
    if await conn.fetchval("select to_regnamespace('pgmq')") is None:
        await conn.execute(pgmq_sql())


async def _apply(conn: db.Connection, script: Script) -> None:
    try:
        await conn.execute(script.text)
    except asyncpg.PostgresError as e:
        raise MigrationError(f"{script.name} failed: {e}") from e
    await conn.execute(
        "insert into pgflows.migrations (name, number, checksum) values ($1, $2, $3) "
        "on conflict (name) do update "
        "set checksum = excluded.checksum, applied_at = clock_timestamp()",
        script.name,
        script.number,
        script.checksum,
    )
