"""The database goes away under a running service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.http.conftest import Serve


@asynccontextmanager
async def closed(database: Any, server_dsn: str) -> AsyncIterator[None]:
    """The database throws everybody out and lets nobody in."""
    admin = await asyncpg.connect(server_dsn)
    name = database.name
    await admin.execute(f"alter database {name} connection limit 0")
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
    )
    try:
        yield
    finally:
        await admin.execute(f"alter database {name} connection limit -1")
        await admin.close()


async def test_control_routes_answer_503_and_say_when_to_try_again(
    serve: Serve, database: Any, server_dsn: str
) -> None:
    async with serve(pool_size=1) as http:
        assert (await http.get("/workflows")).status_code == 200
        async with closed(database, server_dsn):
            away = await http.get("/workflows")
            ready = await http.get("/readyz")
            metrics = await http.get("/metrics")
        back = await http.get("/workflows")
    assert away.status_code == 503
    assert away.headers["retry-after"] == "1"
    assert away.json()["type"] == "urn:pgflows:problem:database-unavailable"
    assert (ready.status_code, ready.json()["database"]) == (503, False)
    assert "pgflows_database_up 0.0" in metrics.text
    assert back.status_code == 200
