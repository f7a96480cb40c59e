"""Deletes runs that ended longer ago than the retention, in small bites."""

from __future__ import annotations

import asyncio
import datetime as dt

from pgflows.database.connections import Connection

PRUNE_EVERY_SECONDS = 60.0
PRUNE_MOST = 200  # runs in one transaction
BITE_PAUSE_SECONDS = 0.1

PRUNE = "select pgflows.prune($1, $2)"


async def prune(conn: Connection, retention_days: float) -> None:
    """Deletes everything that is old enough by now."""
    age = dt.timedelta(days=retention_days)
    while await conn.fetchval(PRUNE, age, PRUNE_MOST) == PRUNE_MOST:  # noqa: ASYNC110 - paced
        await asyncio.sleep(BITE_PAUSE_SECONDS)
