"""Whether the schema is there, whose it is, and whether its roles may do what they must."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pgflows.cli.doctor.findings import BROKEN, OK, WARNING, Finding, Look
from pgflows.database.connections import BATCHES
from pgflows.database.faults import ANY
from pgflows.database.migrations import check_scripts, lost_rights
from pgflows.database.migrations.rights import check_owner, missing_rights
from pgflows.database.roles import RUN_ROLE, Logins
from pgflows.errors import DatabaseGone, LoginRefused, MigrationError, SetupError


async def owner(look: Look) -> AsyncIterator[Finding]:
    """Nothing is said if all is well: `role` does."""
    try:
        await check_owner(look.conn, ours=look.ours)
    except SetupError as e:
        yield Finding(BROKEN, "owner", e.message, "check PGFLOWS_DSN: its user")


async def role(look: Look) -> AsyncIterator[Finding]:
    name = await look.conn.fetchval("select current_user")
    superuser = "select rolsuper from pg_roles where rolname = current_user"
    if await look.conn.fetchval(superuser):
        advice = "use a role of its own: the service needs no superuser"
        yield Finding(WARNING, "role", f"{name} is a superuser", advice)
        return
    if lacks := await missing_rights(look.conn):
        advice = f"as a DBA: {' '.join(lacks)}"
        yield Finding(BROKEN, "role", f"{name} may not do all that pgflows needs", advice)
        return
    yield Finding(OK, "role", str(name))


async def migrations(look: Look) -> AsyncIterator[Finding]:
    try:
        await check_scripts(look.conn)
    except MigrationError as e:
        yield Finding(BROKEN, "migrations", e.message, "pgflows migrate")
    else:
        yield Finding(OK, "migrations", "up to date")


async def rights(look: Look) -> AsyncIterator[Finding]:
    lost = await lost_rights(look.conn)
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        advice = "pgflows migrate gives them back"
        yield Finding(BROKEN, "rights", f"lost (a restore?): {lost[0]}{more}", advice)
    else:
        yield Finding(OK, "rights", "owners and privileges are as the migration left them")


async def login(look: Look) -> AsyncIterator[Finding]:
    logins = Logins(look.dsn, look.settings.run_dsn)
    what = f"login as {RUN_ROLE}"
    try:
        if await look.conn.fetchval("select to_regclass('pgflows.run_login')") is not None:
            await logins.learn(look.conn)
        run = await logins.connect_as(RUN_ROLE, BATCHES)
    except (LoginRefused, DatabaseGone, *ANY) as e:
        advice = f"set PGFLOWS_RUN_DSN to a DSN that logs in as {RUN_ROLE}"
        yield Finding(BROKEN, what, str(e.__cause__ or e), advice)
        return
    where = "select current_user || ' in ' || current_database()"
    here, there = await look.conn.fetchval("select current_database()"), await run.fetchval(where)
    await run.close()
    if there != f"{RUN_ROLE} in {here}":
        found = f"PGFLOWS_RUN_DSN logs in as {there}"
        yield Finding(BROKEN, what, found, f"let it log in to {here} as {RUN_ROLE}")
    else:
        yield Finding(OK, what, "works")
