"""What the role that migrates may do, and what a DBA has to run if that is not enough."""

from __future__ import annotations

from typing import Any

from pgflows.config import Settings
from pgflows.database.connections import Connection
from pgflows.database.migrations import run_role
from pgflows.database.orchestrator import df_is_ours
from pgflows.database.roles import RUN_ROLE
from pgflows.errors import SetupError

OLDEST_SERVER = 150000  # server_version_num of PostgreSQL 15


async def check_owner(source: Any, *, ours: bool) -> None:
    """Raises SetupError if the schemas exist and belong to another role.

    `source` is a pool or a connection.
    """
    rows = await source.fetch(
        "select n.nspname as name, current_user as me from pg_namespace n "
        "where n.nspname in ('df', 'pgflows') "
        "and not pg_has_role(current_user, n.nspowner, 'member')"
    )
    taken = [r["name"] for r in rows if ours or r["name"] != "df"]
    if taken:
        raise SetupError(
            f"the schema {' and '.join(taken)} of this database belongs to another role than "
            f"{rows[0]['me']}, and pgflows needs the name. Nothing was changed. Use the role that "
            "migrated before, or a database of its own"
        )


async def check_rights(conn: Connection, dsn: str, settings: Settings) -> None:
    """Raises SetupError, before anything is changed, if the migration would be refused."""
    if int(await conn.fetchval("show server_version_num")) < OLDEST_SERVER:
        version = await conn.fetchval("show server_version")
        raise SetupError(f"PostgreSQL {version} is too old: pgflows needs 15 or later")
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
        settings.run_dsn is None
        and await run_role.exists(conn)
        and not await run_role.knows_password(conn)
        and not await run_role.logs_in_without_password(dsn)
    ):
        raise SetupError(
            f"role {RUN_ROLE} exists already (another database of this server?) and its password "
            "is not known here. Nothing was changed. Set PGFLOWS_RUN_DSN to log in as "
            f"{RUN_ROLE} to this database; a DBA may give the role another password first, if no "
            f"database uses it:\n\n  alter role {RUN_ROLE} login password 'choose one';"
        )


async def missing_rights(conn: Connection) -> list[str]:
    """The statements that a DBA has to run before this role can migrate; mostly empty."""
    (row,) = await conn.fetch(
        "select current_user as me, current_database() as here, "
        "r.rolsuper or r.rolcreaterole as may_make_roles, "
        "has_database_privilege(current_database(), 'create') "
        "or to_regnamespace('pgflows') is not null as may_create, "
        "to_regnamespace('public') is not null and has_schema_privilege("
        "to_regnamespace('public')::oid, 'create') as may_public "
        "from pg_roles r where r.rolname = current_user"
    )
    me, here = quoted(row["me"]), quoted(row["here"])
    lacks: list[str] = []
    if not row["may_create"]:
        lacks.append(f"grant create on database {here} to {me};")
    if not row["may_public"] and await df_is_ours(conn):
        lacks.append(f"create schema if not exists public; grant create on schema public to {me};")
    if await run_role.exists(conn):
        may_join = await run_role.may_join(conn)
    else:
        may_join = row["may_make_roles"]
        if not may_join:
            lacks.append(f"create role {RUN_ROLE} login password 'choose one';")
    if not may_join:
        lacks.append(f"grant {RUN_ROLE} to {me};")
    return lacks


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
