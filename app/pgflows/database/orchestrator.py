"""Whose `df` a database has: this project's, or that of the extension pg_durable."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("pgflows.database")


async def df_is_ours(source: Any) -> bool:
    """What `pgflows.df_is_ours()` answers, also for a database that was never migrated.

    `source` is a pool or a connection.
    """
    return bool(
        await source.fetchval(
            "select not exists (select from pg_extension where extname = 'pg_durable')"
        )
    )


async def needs_engine(source: Any) -> bool:
    """True if `df` needs an engine of this project. If not, one log line says so."""
    if await df_is_ours(source):
        return True
    log.info("the extension pg_durable runs the graphs: no engine is opened, only maintenance")
    return False
