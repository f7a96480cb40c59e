"""Brings a database up to date: each migration once, the functions whenever one of them changed.

One transaction under an advisory lock does it all, so any number of processes may migrate at once.
What the role may not do is found before anything is changed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.database.faults import ANY, is_away, reason
from pgflows.database.migrations import run_role
from pgflows.database.migrations.rights import (
    check_owner,
    check_rights,
    check_server,
    foreign_schemas,
    hand_over,
)
from pgflows.database.migrations.scripts import (
    BOOTSTRAP,
    Script,
    makes_df,
    pgmq_sql,
    plan,
    wanted_scripts,
)
from pgflows.database.orchestrator import df_is_ours
from pgflows.database.roles import RUN_ROLE
from pgflows.errors import MigrationError, SetupError

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
RESTORED = "owners and privileges of {} objects, which were lost"


async def migrate(dsn: str, settings: Settings) -> list[str]:
    """Applies what is missing and returns the names of the scripts.

    Owners and privileges that were recorded and are gone, as after a restore without them, are
    given back. Raises SetupError or MigrationError, having changed nothing.
    """
    conn = await db.connect(dsn, db.MIGRATION)
    try:
        for _ in range(TRIES - 1):
            with suppress(*ROLE_RACE):
                return await _migrate(conn, dsn, settings)
            await asyncio.sleep(PAUSE_SECONDS)
        return await _migrate(conn, dsn, settings)
    except ANY as e:
        if not is_away(e):
            raise
        raise SetupError(f"the database cannot be migrated now: {reason(e)}") from e
    finally:
        await conn.close()


async def check_schema(source: Any) -> None:
    """Raises MigrationError unless the database has this version's scripts and the rights that
    they gave, and SetupError if they belong to another role.

    `source` is a pool or a connection.
    """
    await check_owner(source, ours=await df_is_ours(source))
    await check_scripts(source)
    if lost := await lost_rights(source):
        raise MigrationError(
            f"{len(lost)} owners or privileges in this database are not what the migration made "
            f"them (a restore without them?), the first: {lost[0]}. Run `pgflows migrate`"
        )


async def check_scripts(source: Any) -> None:
    """Raises MigrationError unless the database has exactly this version's scripts."""
    if not await _is_migrated(source):
        raise MigrationError("this database is not migrated: run `pgflows migrate`")
    ours = await df_is_ours(source)
    applied = await _applied(source, ours=ours)
    if missing := plan(wanted_scripts(ours=ours), applied.checksums):
        names = ", ".join(s.name for s in missing[:3])
        raise MigrationError(f"this database lacks {names}: run `pgflows migrate`")


async def lost_rights(source: Any) -> list[str]:
    """What the last migration recorded of owners and privileges and is not so any more."""
    if await source.fetchval("select to_regprocedure('pgflows.lost_rights()')") is None:
        return []
    lost = "select problem from pgflows.lost_rights() order by change desc, object"
    return [r["problem"] for r in await source.fetch(lost)]


async def _migrate(conn: db.Connection, dsn: str, settings: Settings) -> list[str]:
    async with conn.transaction():
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        await conn.execute("set local client_min_messages = warning")
        ours = await df_is_ours(conn)
        await _check_before(conn, dsn, settings, ours=ours)
        applied = await _applied(conn, ours=ours)
        scripts = plan(wanted_scripts(ours=ours), applied.checksums)
        if applied.for_another_df:
            await conn.execute("select pgflows._forget_df()")
        lost = await lost_rights(conn)
        if not scripts and not lost and await run_role.is_joined(conn):
            return []
        await _prepare(conn, ours=ours)
        if lost:
            await conn.execute("select pgflows._restore_rights()")
        for script in scripts:
            await _apply(conn, script)
        await conn.execute(f"revoke create on schema pgflows from {RUN_ROLE}")
        await conn.execute("select df.grant_usage($1, include_http => true)", RUN_ROLE)
        if applied.for_another_df:
            await conn.execute("select pgflows._move_runs()")
        await conn.execute("select pgflows._record_rights()")
        return [s.name for s in scripts] + ([RESTORED.format(len(lost))] if lost else [])


async def _check_before(conn: db.Connection, dsn: str, settings: Settings, *, ours: bool) -> None:
    """Raises SetupError if something of the server or of its roles is in the way."""
    if taken := await foreign_schemas(conn, ours=ours):
        raise SetupError(
            f"{taken}, and pgflows needs the name. Nothing was changed. Use the role that migrated "
            "before, or a database of its own. If a restore gave the schemas to another role, let "
            f"a superuser run this in this database:\n\n{await hand_over(conn)}"
        )
    await check_server(conn)
    await check_rights(conn, ours=ours)
    await run_role.check_login(conn, dsn, settings)


@dataclass(frozen=True)
class Applied:
    """The checksum of each script that this database has had, and whether it had another `df`.

    If so, only the migrations of schema pgflows count as applied.
    """

    checksums: dict[str, str]
    for_another_df: bool = False


async def _applied(source: Any, *, ours: bool) -> Applied:
    if not await _is_migrated(source):
        return Applied({})
    rows = await source.fetch("select name, checksum from pgflows.migrations")
    checksums = {r["name"]: r["checksum"] for r in rows}
    has_our_df = await source.fetchval(
        "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = 'df' and c.relname = '_work'"
    )
    had_our_df = any(makes_df(name) for name in checksums)
    if had_our_df == ours and bool(has_our_df) == ours:
        return Applied(checksums)
    kept = {n: c for n, c in checksums.items() if n.startswith("migrations/") and not makes_df(n)}
    return Applied(kept, for_another_df=True)


async def _is_migrated(source: Any) -> bool:
    return await source.fetchval("select to_regclass('pgflows.migrations')") is not None


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
