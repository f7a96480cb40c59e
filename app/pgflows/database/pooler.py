"""Whether a connection string leads through a pooler, and whether that keeps one session a client.

pgflows listens, holds advisory locks and fixes settings for as long as a session lasts. A pooler
that gives the server's session to another client after each transaction breaks all of these.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from pgflows.database.dsn import parse
from pgflows.errors import SetupError

SESSIONS = 4  # tried beside the first one; a pooler mostly hands out what was used last
PATIENCE_SECONDS = 2.0  # for another session; in session mode a pool may have no more of them
PID = "select pg_catalog.pg_backend_pid()"


async def check_pooler(dsn: str) -> bool:
    """Raises SetupError if a pooler gives sessions of the server away after each transaction.

    Returns whether there is a pooler at all. Nothing is set in any session.
    """
    async with AsyncExitStack() as opened:
        first = await _open(dsn, opened)
        pid = await _pid(first)
        if pid == first.get_server_pid():
            return False  # a pooler makes up the process id that it tells its client
        for _ in range(SESSIONS):
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    other = await _open(dsn, opened)
                    await other.execute("begin")  # keeps the server's session, if it has one
                    taken = int(await other.fetchval(PID))
            except TimeoutError:
                return True  # the pool is full, and nobody gives the first one's session away
            except (asyncpg.PostgresError, OSError):
                return True
            if taken == pid or await _pid(first) != pid:
                raise _unfit("transaction")
        return True


async def _open(dsn: str, opened: AsyncExitStack) -> Any:
    address = parse(dsn)
    conn = await asyncpg.connect(
        address.url,
        timeout=address.timeout_seconds,
        statement_cache_size=0,
        server_settings={"application_name": "pgflows probe"},
    )
    opened.callback(conn.terminate)
    return conn


async def _pid(conn: Any) -> int:
    """The process that serves one transaction of this client."""
    try:
        async with conn.transaction():
            return int(await conn.fetchval(PID))
    except asyncpg.PostgresError as e:
        if "statement pooling" in str(e):
            raise _unfit("statement") from e
        raise


def _unfit(mode: str) -> SetupError:
    return SetupError(
        f"the DSN leads through a pooler in {mode} mode, where sessions of the server change hands "
        "and pgflows cannot listen or hold locks: let it use session mode (PgBouncer: pool_mode="
        "session for this database or user), or give pgflows the server's own address"
    )
