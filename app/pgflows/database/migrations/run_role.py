"""The role pgflows_run, which submits every run of a registered workflow and owns what starts them.

Migrations create it, if they may, and let the owner hand functions over to it.
"""

from __future__ import annotations

import secrets

from pgflows.database.connections import Connection, connect
from pgflows.database.dsn import as_role
from pgflows.database.faults import ANY
from pgflows.database.roles import RUN_ROLE

SET_OPTION_SINCE = 16  # major version where the right to SET ROLE became an option of membership


async def exists(conn: Connection) -> bool:
    return bool(await conn.fetchval("select 1 from pg_roles where rolname = $1", RUN_ROLE))


async def may_join(conn: Connection) -> bool:
    """Whether the current role may hand functions to the run role, or may allow itself to."""
    may_make_roles = await conn.fetchval(
        "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
    )
    if not _has_set_option(conn) and may_make_roles:
        return True
    return await _may_set(conn) or bool(
        await conn.fetchval(
            "select pg_has_role(current_user, $1, 'member with admin option')", RUN_ROLE
        )
    )


async def create(conn: Connection) -> None:
    """Creates the role, with a password that only the owner can read."""
    password = secrets.token_urlsafe(32)
    await conn.execute(f"create role {RUN_ROLE} login password '{password}'")
    await conn.execute(
        "create table if not exists pgflows.run_login "
        "(one boolean primary key default true check (one), password text not null)"
    )
    await conn.execute("insert into pgflows.run_login (password) values ($1)", password)


async def join(conn: Connection) -> None:
    """Makes the current role a member that may SET ROLE, unless it is one."""
    if await conn.fetchval("select rolsuper from pg_roles where rolname = current_user"):
        return
    if await _may_set(conn):
        return
    options = " with inherit false, set true" if _has_set_option(conn) else ""
    await conn.execute(f"grant {RUN_ROLE} to current_user{options}")


async def knows_password(conn: Connection) -> bool:
    """Whether the database keeps the role's password."""
    if await conn.fetchval("select to_regclass('pgflows.run_login')") is None:
        return False
    return bool(await conn.fetchval("select count(*) from pgflows.run_login"))


async def logs_in_without_password(dsn: str) -> bool:
    """Whether the server trusts this address for the role, or a password file knows it."""
    try:
        conn = await connect(as_role(dsn, RUN_ROLE, None))
    except ANY:
        return False
    await conn.close()
    return True


async def _may_set(conn: Connection) -> bool:
    option = "SET" if _has_set_option(conn) else "MEMBER"
    return bool(await conn.fetchval("select pg_has_role(current_user, $1, $2)", RUN_ROLE, option))


def _has_set_option(conn: Connection) -> bool:
    return conn.get_server_version().major >= SET_OPTION_SINCE
