"""The role pgflows_run, which submits every run of a registered workflow and owns what starts them.

Migrations create it, if they may, and let the owner hand functions over to it.
"""

from __future__ import annotations

import secrets

from pgflows.config import Settings
from pgflows.database.connections import Connection, connect
from pgflows.database.dsn import as_role
from pgflows.database.faults import ANY
from pgflows.database.roles import REFUSED, RUN_ROLE
from pgflows.errors import SetupError

SET_OPTION_SINCE = 16  # major version where the right to SET ROLE became an option of membership
USE_WHAT_IS_KEPT = (
    "do $$ begin execute format('alter role pgflows_run login password %L', "
    "(select password from pgflows.run_login)); end $$;"
)


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
    """Creates the role, with a password that only the owner can read.

    A restored database brings the password along.
    """
    password = await _kept_password(conn) or secrets.token_urlsafe(32)
    statement = "select format('create role pgflows_run login password %L', $1::text)"
    await conn.execute(await conn.fetchval(statement, password))
    await conn.execute(
        "create table if not exists pgflows.run_login "
        "(one boolean primary key default true check (one), password text not null)"
    )
    await conn.execute(
        "insert into pgflows.run_login (password) values ($1) on conflict do nothing", password
    )


async def is_joined(conn: Connection) -> bool:
    """Whether the role exists and the current one is a member that may SET ROLE."""
    return await exists(conn) and await _may_set(conn)


async def join(conn: Connection) -> None:
    """Makes the current role such a member, unless it is one."""
    if await _may_set(conn):
        return
    options = " with inherit false, set true" if _has_set_option(conn) else ""
    await conn.execute(f"grant {RUN_ROLE} to current_user{options}")


async def check_login(conn: Connection, dsn: str, settings: Settings) -> None:
    """Raises SetupError if the role exists and nobody could say how engines log in as it."""
    if settings.run_dsn is not None or not await exists(conn):
        return
    password = await _kept_password(conn)
    try:
        login = await connect(as_role(dsn, RUN_ROLE, password))
    except REFUSED as e:
        if password:
            raise SetupError(
                f"the server refuses the password of {RUN_ROLE} that this database keeps ({e}): "
                "the database comes from another server, or somebody changed the password. "
                "Nothing was changed. Set PGFLOWS_RUN_DSN to log in as "
                f"{RUN_ROLE} to this database, or let a superuser give the role the password that "
                f"is kept here, if no other database uses it:\n\n  {USE_WHAT_IS_KEPT}"
            ) from e
        raise SetupError(
            f"role {RUN_ROLE} exists already (another database of this server?) and its password "
            "is not known here. Nothing was changed. Set PGFLOWS_RUN_DSN to log in as "
            f"{RUN_ROLE} to this database; a DBA may give the role another password first, if no "
            f"database uses it:\n\n  alter role {RUN_ROLE} login password 'choose one';"
        ) from e
    except ANY:
        return  # the server lacks something else at the moment; it has not refused the role
    await login.close()


async def _kept_password(conn: Connection) -> str | None:
    if await conn.fetchval("select to_regclass('pgflows.run_login')") is None:
        return None
    password: str | None = await conn.fetchval("select password from pgflows.run_login")
    return password


async def _may_set(conn: Connection) -> bool:
    option = "SET" if _has_set_option(conn) else "MEMBER"
    return bool(await conn.fetchval("select pg_has_role(current_user, $1, $2)", RUN_ROLE, option))


def _has_set_option(conn: Connection) -> bool:
    return conn.get_server_version().major >= SET_OPTION_SINCE
