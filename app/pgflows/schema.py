"""Brings a database up to date: numbered migrations once, functions whenever they changed.

One transaction under an advisory lock, so that any number of processes may migrate at once. Before
anything is changed, what the role may not do is found and told as statements for a DBA.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from pgmq.install import get_embedded_install_sql

from pgflows import db
from pgflows.errors import MigrationError, SetupError
from pgflows.settings import Settings

LOCK = 0x7067666C6F7773
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
    installed = Path(__file__).parent / "sql"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "sql"


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
    conn = await db.connect(dsn, "pgflows migrate")
    try:
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
            await conn.execute("set local client_min_messages = warning")
            extension = await _has_extension(conn)
            applied = await _applied(conn)
            wanted = [s for s in scripts() if not (extension and s.for_our_df)]
            plan = _plan(wanted, applied)
            if not plan:
                return []
            await _preflight(conn, settings, extension)
            await _prepare(conn, settings, extension)
            for script in plan:
                await _apply(conn, script)
            await _grant(conn, extension)
            return [s.name for s in plan]
    finally:
        await conn.close()


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


async def _preflight(conn: db.Connection, settings: Settings, extension: bool) -> None:
    """Finds what this role may not do, before anything is changed."""
    version = conn.get_server_version()
    if int(await conn.fetchval("show server_version_num")) < OLDEST_SERVER:
        raise SetupError(f"PostgreSQL {version.major} is too old: pgflows needs 15 or later")
    (row,) = await conn.fetch(
        "select current_user as me, current_database() as here, r.rolsuper, r.rolcreaterole, "
        "has_database_privilege(current_database(), 'create') as may_create, "
        "has_schema_privilege('public', 'create') as may_public, "
        "to_regnamespace('pgflows') is not null as mine_exists, "
        "exists (select from pg_roles where rolname = 'pgflows_run') as run_exists, "
        "exists (select from pg_auth_members m join pg_roles x on x.oid = m.roleid "
        "where x.rolname = 'pgflows_run' and m.member = r.oid) as member "
        "from pg_roles r where r.rolname = current_user"
    )
    me, here = _quoted(row["me"]), _quoted(row["here"])
    lacks: list[str] = []
    if not row["may_create"] and not row["mine_exists"]:
        lacks.append(f"grant create on database {here} to {me};")
    if not row["may_public"] and not extension:
        lacks.append(f"grant create on schema public to {me};")
    if not row["run_exists"] and not (row["rolcreaterole"] or row["rolsuper"]):
        lacks.append(f"create role {RUN_ROLE} login password 'choose one';")
    if (
        not row["member"]
        and not row["rolsuper"]
        and (row["run_exists"] or not row["rolcreaterole"])
    ):
        lacks.append(f"grant {RUN_ROLE} to {me};")
    if lacks:
        raise SetupError(
            f"role {row['me']} may not do all that pgflows needs. Nothing was changed. "
            "Let a DBA run this, then migrate again"
            + (
                ""
                if settings.run_dsn
                else f" with PGFLOWS_RUN_DSN saying how to log in as {RUN_ROLE}"
            )
            + ":\n\n"
            + "\n".join(f"  {s}" for s in lacks)
        )
    if row["run_exists"] and settings.run_dsn is None and not await _knows_password(conn):
        raise SetupError(
            f"role {RUN_ROLE} exists already (another database of this server?) and its password "
            f"is not known here. Nothing was changed. Set PGFLOWS_RUN_DSN to log in as {RUN_ROLE} "
            "to this database"
        )


async def _knows_password(conn: db.Connection) -> bool:
    if await conn.fetchval("select to_regclass('pgflows.run_login')") is None:
        return False
    return bool(await conn.fetchval("select count(*) from pgflows.run_login"))


async def _prepare(conn: db.Connection, settings: Settings, extension: bool) -> None:
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
        await conn.execute(get_embedded_install_sql())


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
    """Raises MigrationError unless this version's migrations are what the database has.

    `source` is a pool or a connection.
    """
    if await source.fetchval("select to_regclass('pgflows.migrations')") is None:
        raise MigrationError("this database is not migrated: run `pgflows migrate`")
    rows = await source.fetch("select name, checksum from pgflows.migrations")
    extension = await source.fetchval("select 1 from pg_extension where extname = 'pg_durable'")
    wanted = [s for s in scripts() if not (extension and s.for_our_df)]
    missing = _plan(wanted, {r["name"]: r["checksum"] for r in rows})
    if missing:
        names = ", ".join(s.name for s in missing[:3])
        raise MigrationError(f"this database lacks {names}: run `pgflows migrate`")


def print_sql() -> str:
    """All statements of a migration from nothing, for reading or for a DBA to run with psql."""
    parts = [
        "-- What `pgflows migrate` runs on an empty database, in one transaction.",
        f"-- Before it: create role {RUN_ROLE} login; grant {RUN_ROLE} to the owner.",
        "begin;",
        BOOKS,
        "create schema if not exists df;",
        f"grant usage, create on schema pgflows to {RUN_ROLE};",
        "-- pgmq, from its official client",
        get_embedded_install_sql(),
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
