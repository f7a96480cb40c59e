"""What the role that migrates may do, and what a DBA has to run if that is not enough."""

from __future__ import annotations

from typing import Any

import asyncpg

from pgflows.database.connections import Connection
from pgflows.database.migrations import run_role
from pgflows.database.migrations.scripts import sql_directory
from pgflows.database.orchestrator import df_is_ours
from pgflows.database.roles import RUN_ROLE
from pgflows.errors import SetupError

OLDEST_SERVER = 150000  # server_version_num of PostgreSQL 15


async def check_owner(source: Any, *, ours: bool) -> None:
    """Raises SetupError if the schemas exist and belong to another role.

    `source` is a pool or a connection.
    """
    if taken := await foreign_schemas(source, ours=ours):
        raise SetupError(
            f"{taken}. Use the role that migrated before, or a database of its own; after a "
            "restore under another name, `pgflows migrate` prints what hands everything over"
        )


async def foreign_schemas(source: Any, *, ours: bool) -> str:
    """Which schemas belong, or have a table that belongs, to a role that this one is not in."""
    rows = await source.fetch(
        "select n.nspname as name, pg_get_userbyid(o.owner) as owner, current_user as me "
        "from pg_namespace n cross join lateral (select n.nspowner as owner "
        "union select c.relowner from pg_class c where c.relnamespace = n.oid) o "
        "where n.nspname in ('df', 'pgflows') and not pg_has_role(current_user, o.owner, 'member') "
        "order by 1"
    )
    taken = [r for r in rows if ours or r["name"] != "df"]
    if not taken:
        return ""
    return (
        f"the schema {' and '.join(sorted({r['name'] for r in taken}))} of this database belongs "
        f"to another role than {taken[0]['me']}: to {taken[0]['owner']}"
    )


async def hand_over(conn: Connection) -> str:
    """The statement that makes the current role the owner of everything of pgflows."""
    me = quoted(await conn.fetchval("select current_user"))
    text = (sql_directory() / "hand_over.sql").read_text("utf-8")
    return text.partition("do $$")[1] + text.partition("do $$")[2].replace("NEW_OWNER", me)


async def check_server(conn: Connection) -> None:
    """Raises SetupError if pgflows cannot work in this database, whoever migrates it."""
    if int(await conn.fetchval("show server_version_num")) < OLDEST_SERVER:
        version = await conn.fetchval("show server_version")
        raise SetupError(f"PostgreSQL {version} is too old: pgflows needs 15 or later")
    encoding = await conn.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise SetupError(
            f"the encoding of this database is {encoding}, and pgflows needs UTF8. Nothing was "
            "changed. Make another: create database NAME encoding 'UTF8' template template0"
        )


async def worker_elsewhere(conn: Connection) -> str:
    """Why the worker of the extension pg_durable does not serve this database; or ''."""
    try:
        served = await conn.fetchval("select df.target_database()")
    except asyncpg.PostgresError as e:
        return f"the extension pg_durable is installed here, and does not work: {e}"
    here = await conn.fetchval("select current_database()")
    if served != here:
        return (
            f"the worker of pg_durable serves the database {served}, so nothing would run in "
            f"{here}: use the database {served}, or set pg_durable.database = '{here}' and restart "
            "the server"
        )
    return ""


async def check_rights(conn: Connection, *, ours: bool) -> None:
    """Raises SetupError with the statements for a DBA if the role may not migrate."""
    if lacks := await missing_rights(conn):
        me = await conn.fetchval("select current_user")
        raise SetupError(
            f"role {me} may not do all that pgflows needs. Nothing was changed. "
            "Let a DBA run this in this database, then migrate again (with "
            f"PGFLOWS_RUN_DSN=postgresql://{RUN_ROLE}:PASSWORD@HOST/DATABASE, if the server asks "
            f"{RUN_ROLE} for a password):\n\n" + "\n".join(f"  {s}" for s in lacks)
        )
    if not ours and (elsewhere := await worker_elsewhere(conn)):
        raise SetupError(f"{elsewhere}. Nothing was changed")


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
    if await df_is_ours(conn):
        if not row["may_public"]:
            lacks.append(
                f"create schema if not exists public; grant create on schema public to {me};"
            )
    elif not await _may_pass_on_df(conn):
        literal = row["me"].replace("'", "''")
        lacks.append(
            f"select df.grant_usage('{literal}', include_http => true, with_grant => true);"
        )
    if await run_role.exists(conn):
        may_join = await run_role.may_join(conn)
    else:
        may_join = row["may_make_roles"]
        if not may_join:
            lacks.append(f"create role {RUN_ROLE} login password 'choose one';")
    if not may_join:
        lacks.append(f"grant {RUN_ROLE} to {me};")
    return lacks


async def _may_pass_on_df(conn: Connection) -> bool:
    """Whether the role has what the extension's df.grant_usage(…, with_grant => true) gives."""
    return bool(
        await conn.fetchval(
            "select has_schema_privilege(n.oid, 'usage with grant option') and bool_and("
            "has_function_privilege(p.oid, 'execute with grant option')) "
            "from pg_namespace n join pg_proc p on p.pronamespace = n.oid "
            "where n.nspname = 'df' and p.proname in "
            "('http', 'http_multipart', 'grant_usage', 'revoke_usage', 'metrics') group by n.oid"
        )
    )


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
