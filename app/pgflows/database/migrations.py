"""Brings a database up to date: numbered migrations once, functions whenever they changed.

One transaction under an advisory lock, so that any number of processes may migrate at once. Before
anything is changed, what the role may not do is found and told as statements for a DBA.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.errors import MigrationError, SetupError

LOCK = 0x7067666C6F7773
# Roles belong to the whole server, the lock to one database: another may make the same role now.
ROLE_RACE = (
    asyncpg.DuplicateObjectError,
    asyncpg.UniqueViolationError,
    asyncpg.InternalServerError,  # "tuple concurrently updated"
)
TRIES = 5
RUN_ROLE = "pgflows_run"
OLDEST_SERVER = 150000
PGMQ = "pgmq"


@dataclass(frozen=True)
class Script:
    """One SQL file; `number` is 0 for a repeatable one."""

    name: str
    text: str
    number: int

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def for_our_df(self) -> bool:
        """True for what is left out where the extension brings `df`."""
        return self.name.startswith("df/") or bool(re.match(r"migrations/\d+_df_", self.name))


def sql_directory() -> Path:
    """Inside the package when it was installed, in the checkout otherwise."""
    package = Path(__file__).parents[1]
    installed = package / "sql"
    return installed if installed.is_dir() else package.parents[1] / "sql"


def scripts() -> list[Script]:
    """All SQL in the order of application: migrations, then `df`, then functions."""
    root = sql_directory()
    found = []
    for folder in ("migrations", "df", "functions"):
        for path in sorted((root / folder).glob("*.sql")):
            number = int(path.name.split("_")[0]) if folder == "migrations" else 0
            found.append(Script(f"{folder}/{path.name}", path.read_text("utf-8"), number))
    return found


BOOKS = """
create schema if not exists pgflows;
create table if not exists pgflows.migrations (
  name text primary key, number integer not null, checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
);
"""  # the two statements that must exist before the first script can be recorded


async def migrate(dsn: str, settings: Settings) -> list[str]:
    """Applies what is missing; returns the names. Raises SetupError or MigrationError, changing
    nothing.
    """
    # nothing of a schema that others may write to is found, not even by an operator
    conn = await db.connect(dsn, "pgflows migrate", search_path="pg_catalog")
    try:
        for _ in range(TRIES - 1):
            with suppress(*ROLE_RACE):
                return await _migrate(conn, dsn, settings)
            await asyncio.sleep(0.1)
        return await _migrate(conn, dsn, settings)
    finally:
        await conn.close()


async def _migrate(conn: db.Connection, dsn: str, settings: Settings) -> list[str]:
    async with conn.transaction():
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        await conn.execute("set local client_min_messages = warning")
        extension = await _has_extension(conn)
        await _check_owner(conn, extension)
        applied = await _applied(conn)
        wanted = [s for s in scripts() if not (extension and s.for_our_df)]
        plan = _plan(wanted, applied)
        if not plan:
            return []
        await _preflight(conn, dsn, settings)
        await _prepare(conn, extension)
        for script in plan:
            await _apply(conn, script)
        await _grant(conn, extension)
        return [s.name for s in plan]


async def _has_extension(conn: db.Connection) -> bool:
    return bool(await conn.fetchval("select 1 from pg_extension where extname = 'pg_durable'"))


async def _applied(conn: db.Connection) -> dict[str, str]:
    if await conn.fetchval("select to_regclass('pgflows.migrations')") is None:
        return {}
    return {r["name"]: r["checksum"] for r in await conn.fetch("select * from pgflows.migrations")}


def _plan(wanted: Sequence[Script], applied: dict[str, str]) -> list[Script]:
    """New migrations, and every repeatable script if any of them is new or changed."""
    migrations = [s for s in wanted if s.number]
    known = {s.name for s in migrations}
    newer = sorted(n for n in applied if n.startswith("migrations/") and n not in known)
    if newer:
        raise MigrationError(
            f"this database is newer than this version of pgflows: it has {', '.join(newer)}; "
            "install a version that knows them"
        )
    for script in migrations:
        if applied.get(script.name, script.checksum) != script.checksum:
            raise MigrationError(
                f"{script.name} was edited after it was applied to this database; migrations are "
                "immutable: restore the file and write a new one"
            )
    new = [s for s in migrations if s.name not in applied]
    repeatable = [s for s in wanted if not s.number]
    changed = any(applied.get(s.name) != s.checksum for s in repeatable)
    return new + (repeatable if changed or new else [])


async def _check_owner(source: Any, extension: bool) -> None:
    """Raises SetupError where pgflows is here, but of another role; most of it would be refused."""
    rows = await source.fetch(
        "select n.nspname as name, current_user as me from pg_namespace n "
        "where n.nspname in ('df', 'pgflows') "
        "and not pg_has_role(current_user, n.nspowner, 'member')"
    )
    taken = [r["name"] for r in rows if not (extension and r["name"] == "df")]
    if taken:
        raise SetupError(
            f"the schema {' and '.join(taken)} of this database belongs to another role than "
            f"{rows[0]['me']}, and pgflows needs the name. Nothing was changed. Use the role that "
            "migrated before, or a database of its own"
        )


async def _preflight(conn: db.Connection, dsn: str, settings: Settings) -> None:
    """Finds what this role may not do, before anything is changed."""
    version = conn.get_server_version()
    if int(await conn.fetchval("show server_version_num")) < OLDEST_SERVER:
        raise SetupError(f"PostgreSQL {version.major} is too old: pgflows needs 15 or later")
    if lacks := await missing_rights(conn):
        me = await conn.fetchval("select current_user")
        login = (
            ""
            if settings.run_dsn
            else f" with PGFLOWS_RUN_DSN=postgresql://{RUN_ROLE}:PASSWORD@HOST/DATABASE"
        )
        raise SetupError(
            f"role {me} may not do all that pgflows needs. Nothing was changed. "
            f"Let a DBA run this in this database, then migrate again{login}:\n\n"
            + "\n".join(f"  {s}" for s in lacks)
        )
    if (
        await conn.fetchval("select 1 from pg_roles where rolname = 'pgflows_run'")
        and settings.run_dsn is None
        and not await _knows_password(conn)
        and not await _may_log_in(dsn)
    ):
        raise SetupError(
            f"role {RUN_ROLE} exists already (another database of this server?) and its password "
            "is not known here. Nothing was changed. Set PGFLOWS_RUN_DSN to log in as "
            f"{RUN_ROLE} to this database; a DBA may give the role another password first, if no "
            f"database uses it:\n\n  alter role {RUN_ROLE} login password 'choose one';"
        )


async def missing_rights(conn: db.Connection) -> list[str]:
    """What a DBA has to run before this role can migrate; empty where nothing is missing."""
    extension = await _has_extension(conn)
    (row,) = await conn.fetch(
        "select current_user as me, current_database() as here, r.rolsuper, r.rolcreaterole, "
        "has_database_privilege(current_database(), 'create') as may_create, "
        "to_regnamespace('public') is not null and has_schema_privilege("
        "to_regnamespace('public')::oid, 'create') as may_public, "
        "to_regnamespace('pgflows') is not null as mine_exists, "
        "exists (select from pg_roles where rolname = 'pgflows_run') as run_exists "
        "from pg_roles r where r.rolname = current_user"
    )
    me, here = _quoted(row["me"]), _quoted(row["here"])
    lacks: list[str] = []
    if not row["may_create"] and not row["mine_exists"]:
        lacks.append(f"grant create on database {here} to {me};")
    if not row["may_public"] and not extension:
        lacks.append(f"create schema if not exists public; grant create on schema public to {me};")
    may_make_roles = row["rolcreaterole"] or row["rolsuper"]
    if not row["run_exists"] and not may_make_roles:
        lacks.append(f"create role {RUN_ROLE} login password 'choose one';")
    if row["run_exists"]:
        may_join = row["rolsuper"] or await _may_join(conn, may_make_roles)
    else:
        may_join = may_make_roles
    if not may_join:
        lacks.append(f"grant {RUN_ROLE} to {me};")
    return lacks


async def _may_join(conn: db.Connection, may_make_roles: bool) -> bool:
    """May this role hand functions to the run role, or allow itself to?"""
    if not _modern(conn) and may_make_roles:
        return True
    return bool(
        await conn.fetchval(
            "select pg_has_role(current_user, 'pgflows_run', $1) "
            "or pg_has_role(current_user, 'pgflows_run', 'member with admin option')",
            _SET[_modern(conn)],
        )
    )


async def _may_log_in(dsn: str) -> bool:
    """True where the server asks pgflows_run for no password, or a password file knows it."""
    try:
        conn = await asyncpg.connect(dsn, user=RUN_ROLE)
    except (asyncpg.PostgresError, OSError):
        return False
    await conn.close()
    return True


async def _knows_password(conn: db.Connection) -> bool:
    if await conn.fetchval("select to_regclass('pgflows.run_login')") is None:
        return False
    return bool(await conn.fetchval("select count(*) from pgflows.run_login"))


async def _prepare(conn: db.Connection, extension: bool) -> None:
    """Schemas, the run role and pgmq."""
    await conn.execute(BOOKS)
    if not extension:
        await conn.execute("create schema if not exists df")
    if not await conn.fetchval("select 1 from pg_roles where rolname = 'pgflows_run'"):
        password = secrets.token_urlsafe(32)
        await conn.execute(f"create role {RUN_ROLE} login password '{password}'")
        await conn.execute(
            "create table if not exists pgflows.run_login "
            "(one boolean primary key default true check (one), password text not null)"
        )
        await conn.execute("insert into pgflows.run_login (password) values ($1)", password)
    await _join_run_role(conn)
    await conn.execute(f"grant usage, create on schema pgflows to {RUN_ROLE}")
    if await conn.fetchval("select to_regnamespace('pgmq')") is None:
        await conn.execute(_pgmq_sql())


async def _join_run_role(conn: db.Connection) -> None:
    """The owner must be able to hand pgflows.start to the run role; since 16 that is a right of its
    own.
    """
    if await conn.fetchval("select rolsuper from pg_roles where rolname = current_user"):
        return
    if await conn.fetchval(
        "select pg_has_role(current_user, 'pgflows_run', $1)", _SET[_modern(conn)]
    ):
        return
    options = " with inherit false, set true" if _modern(conn) else ""
    await conn.execute(f"grant {RUN_ROLE} to current_user{options}")


_SET = {True: "SET", False: "MEMBER"}


def _modern(conn: db.Connection) -> bool:
    return conn.get_server_version().major >= 16


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


async def _grant(conn: db.Connection, extension: bool) -> None:
    """What the run role may do besides owning pgflows.start: use `df`, and nothing else."""
    await conn.execute(f"revoke create on schema pgflows from {RUN_ROLE}")
    await conn.execute("select df.grant_usage('pgflows_run', include_http => true)")


async def check_schema(source: Any) -> None:
    """Raises MigrationError unless this version's migrations are what the database has, SetupError
    where they are another role's.

    `source` is a pool or a connection.
    """
    extension = await source.fetchval("select 1 from pg_extension where extname = 'pg_durable'")
    await _check_owner(source, extension)
    if await source.fetchval("select to_regclass('pgflows.migrations')") is None:
        raise MigrationError("this database is not migrated: run `pgflows migrate`")
    rows = await source.fetch("select name, checksum from pgflows.migrations")
    wanted = [s for s in scripts() if not (extension and s.for_our_df)]
    missing = _plan(wanted, {r["name"]: r["checksum"] for r in rows})
    if missing:
        names = ", ".join(s.name for s in missing[:3])
        raise MigrationError(f"this database lacks {names}: run `pgflows migrate`")


def print_sql() -> str:
    """All statements of a migration from nothing, for reading or for a DBA to run with psql."""
    parts = [
        "-- What `pgflows migrate` runs on an empty database, in one transaction.",
        "-- To be run by the role that is to own it all, which the service then logs in as.",
        f"-- Before it, as a DBA: create role {RUN_ROLE} login password '...';",
        f"--   grant {RUN_ROLE} to the owner; grant create on database and schema public to it.",
        f"-- After it, set PGFLOWS_RUN_DSN to how engines log in as {RUN_ROLE}.",
        "begin;",
        "set local search_path = pg_catalog;",
        BOOKS,
        "create schema if not exists df;",
        f"grant usage, create on schema pgflows to {RUN_ROLE};",
        "-- pgmq, from its official client",
        _pgmq_sql(),
    ]
    for script in scripts():
        note = (
            " (left out where the extension pg_durable is installed)" if script.for_our_df else ""
        )
        parts.append(f"-- {script.name}{note}\n{script.text}")
        parts.append(
            "insert into pgflows.migrations (name, number, checksum) values "  # noqa: S608 - file names
            f"('{script.name}', {script.number}, '{script.checksum}');"
        )
    parts += [
        f"revoke create on schema pgflows from {RUN_ROLE};",
        "select df.grant_usage('pgflows_run', include_http => true);",
        "commit;",
    ]
    return "\n\n".join(parts) + "\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _pgmq_sql() -> str:
    """The official client brings its server side along. It imports a driver that we do not use, so
    only who installs it waits for that.
    """
    from pgmq.install import get_embedded_install_sql

    return str(get_embedded_install_sql())
