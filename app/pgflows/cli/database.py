"""Finds the database for a command and checks that it can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.database.dsn import shown
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.faults import ANY, is_away, reason
from pgflows.database.migrations import check_schema
from pgflows.database.pooler import check_pooler
from pgflows.errors import SetupError

PATIENCE_SECONDS = 10.0  # for a connection

Dsn = Annotated[
    str | None,
    typer.Option(
        help="The database; unset: PGFLOWS_DSN, or else the embedded server if `pgflows dev` runs",
        show_default=False,
    ),
]


def find_database(settings: Settings) -> str | None:
    """The DSN that is set, or else the embedded server's if it runs."""
    if settings.dsn:
        return settings.dsn
    server = EmbeddedServer(Path(settings.data_dir))
    return server.socket_dsn() if server.pid else None


def require_database(settings: Settings) -> str:
    """Like `find_database`; raises SetupError if there is none."""
    dsn = find_database(settings)
    if dsn is None:
        raise SetupError(
            "no database is named: give --dsn, set PGFLOWS_DSN, or let `pgflows dev` run"
        )
    return dsn


@asynccontextmanager
async def connection(dsn: str) -> AsyncIterator[db.Connection]:
    """A connection for the block. Raises SetupError if the server cannot be reached, or only
    through a pooler that does not keep sessions.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await check_pooler(dsn)
            conn = await db.connect(dsn)
    except (*ANY, ValueError) as e:
        raise SetupError(f"cannot connect to the database {shown(dsn)}: {reason(e)}") from e
    try:
        yield conn
    except ANY as e:
        if not is_away(e):
            raise
        raise SetupError(f"the database {shown(dsn)} cannot serve now: {reason(e)}") from e
    finally:
        await conn.close()


async def check_connection(dsn: str, *, migrated: bool = False) -> None:
    """Raises SetupError if the database cannot be reached, or is not as it must be."""
    async with connection(dsn) as conn:
        if migrated:
            await check_schema(conn)
