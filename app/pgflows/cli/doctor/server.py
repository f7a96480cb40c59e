"""Whether the server can be worked on: version, standby, encoding, pooler, connections, clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from pgflows.cli.doctor.findings import BROKEN, OK, WARNING, Finding, Look
from pgflows.database.migrations.rights import OLDEST_SERVER
from pgflows.database.pooler import check_pooler

MOST_SKEW_SECONDS = 2.0
# Besides its pool: the ledger's two, and that of maintenance.
SERVICE_CONNECTIONS = 3
# Four of its own, and up to ten for each role whose statements it runs: mostly one role.
ENGINE_CONNECTIONS = 4 + 10


async def version(look: Look) -> AsyncIterator[Finding]:
    number = int(await look.conn.fetchval("show server_version_num"))
    text = str(await look.conn.fetchval("show server_version"))
    if number < OLDEST_SERVER:
        yield Finding(BROKEN, "PostgreSQL", text, "pgflows needs version 15 or later")
    else:
        yield Finding(OK, "PostgreSQL", text)


async def writable(look: Look) -> AsyncIterator[Finding]:
    if await look.conn.fetchval("select pg_is_in_recovery()"):
        advice = (
            "use the primary's address, or name all servers: "
            "postgresql://…@one,two/database?target_session_attrs=read-write"
        )
        yield Finding(BROKEN, "server", "a standby, which cannot be written to", advice)
    elif await look.conn.fetchval("show transaction_read_only") == "on":
        advice = (
            "find out who set default_transaction_read_only (a full disk?), and reset it: "
            "alter database … reset default_transaction_read_only"
        )
        yield Finding(BROKEN, "server", "the database is read-only", advice)
    else:
        yield Finding(OK, "server", "a primary that can be written to")


async def encoding(look: Look) -> AsyncIterator[Finding]:
    found = str(await look.conn.fetchval("show server_encoding"))
    if found != "UTF8":
        advice = "make another: create database NAME encoding 'UTF8' template template0"
        yield Finding(BROKEN, "encoding", f"{found}, and pgflows needs UTF8", advice)
    else:
        yield Finding(OK, "encoding", found)


async def pooler(look: Look) -> AsyncIterator[Finding]:
    """In transaction mode nobody gets here: the connection was refused with a reason."""
    if await check_pooler(look.dsn):
        advice = "its pool must be as large as what services and engines need together"
        yield Finding(OK, "pooler", "between here and the server, in session mode", advice)


async def connections(look: Look) -> AsyncIterator[Finding]:
    """Against what one service with an engine may open; how many there will be is not known."""
    need = look.settings.pool_size + SERVICE_CONNECTIONS + (ENGINE_CONNECTIONS if look.ours else 0)
    row = await look.conn.fetchrow(
        "select current_setting('max_connections')::int "
        "- current_setting('superuser_reserved_connections')::int "
        "- coalesce(current_setting('reserved_connections', true)::int, 0) as usable, "
        "d.datconnlimit as of_database, r.rolconnlimit as of_role, (select count(*) "
        "from pg_stat_activity a where a.backend_type = 'client backend') as used, "
        "(select count(*) from pg_stat_activity a "
        "where a.application_name ~ '^pgflows' and a.datname = d.datname) as ours "
        "from pg_database d, pg_roles r "
        "where d.datname = current_database() and r.rolname = current_user"
    )
    assert row is not None  # noqa: S101 - the database and the role of this session exist
    limits = {
        "of max_connections without the reserved ones": row["usable"],
        "of the database's connection limit": row["of_database"],
        "of the role's connection limit": row["of_role"],
    }
    which, limit = min(((k, v) for k, v in limits.items() if v >= 0), key=lambda kv: kv[1])
    found = f"{limit} ({which}), {row['used']} in use, {row['ours']} of them by pgflows"
    if limit < need:
        advice = (
            f"a service with an engine needs up to {need}: raise it, or lower PGFLOWS_POOL_SIZE"
        )
        yield Finding(WARNING, "connections", found, advice)
    elif row["usable"] - row["used"] < need and row["ours"] < need:
        advice = f"few are free: a service with an engine needs up to {need}"
        yield Finding(WARNING, "connections", found, advice)
    else:
        yield Finding(OK, "connections", found, f"a service with an engine needs up to {need}")


async def clock(look: Look) -> AsyncIterator[Finding]:
    before = time.time()
    there = float(await look.conn.fetchval("select extract(epoch from clock_timestamp())"))
    skew = there - (before + time.time()) / 2
    zone = await look.conn.fetchval("select reset_val from pg_settings where name = 'TimeZone'")
    found = f"{skew:+.3f} s against this machine, time zone {zone}"
    if abs(skew) > MOST_SKEW_SECONDS:
        advice = "harmless (only the database's time counts), but logs will not line up"
        yield Finding(WARNING, "clock", found, advice)
    else:
        yield Finding(OK, "clock", found)
