"""Whether this deployment can do its work: database, migrations, engine, in this order."""

from __future__ import annotations

import asyncio

from pgflows.database.access import Access
from pgflows.database.faults import is_away
from pgflows.database.migrations import check_schema
from pgflows.errors import MigrationError, ServiceUnavailable
from pgflows.messages import Ready

PATIENCE_SECONDS = 3.0


async def check(access: Access) -> Ready:
    """What is there and what is missing; answers within seconds also when the database hangs."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), access.reading() as connection:
            await check_schema(connection)
            if await connection.fetchval("show transaction_read_only") == "on":
                return _not_ready("the database is read-only, perhaps a standby", database=True)
            engines = await connection.fetchval("select pgflows.live_engines()")
    except MigrationError as e:
        return _not_ready(e.message, database=True)
    except ServiceUnavailable as e:
        return _not_ready(e.message)
    except Exception as e:
        if not is_away(e):
            raise
        return _not_ready(f"the database is away: {type(e).__name__}")
    if engines == 0:
        detail = "no engine has shown a sign of life for some seconds"
        return _not_ready(detail, database=True, migrations=True)
    return Ready(status="ready", database=True, migrations=True, engine=True)


def _not_ready(detail: str, *, database: bool = False, migrations: bool = False) -> Ready:
    return Ready(
        status="not ready", database=database, migrations=migrations, engine=False, detail=detail
    )
