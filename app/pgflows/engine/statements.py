"""Users' SQL nodes, on connections that logged in as the role that submitted the instance.

Effect and checkpoint commit in one transaction, so a node's effect happens exactly once. What
cannot run inside a transaction (VACUUM, a CALL that commits) runs by itself first and is
checkpointed after: at least once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from pgflows.engine.checkpoint import ClaimLost, Entry, write
from pgflows.engine.results import NodeFailed, Result, encode_rows, storable

OWN_TRANSACTION = ("25001", "2D000")
CONTROL = re.compile(
    r"^(?:\s|--[^\n]*\n|/\*.*?\*/)*(begin|start\s+transaction|commit|end|rollback|abort|savepoint|release"
    r"|prepare\s+transaction)\b",
    re.IGNORECASE | re.DOTALL,
)
PER_ROLE, QUEUE_SECONDS, IDLE_SECONDS = 10, 30.0, 60.0
NODE_SETTINGS = {
    "df.in_workflow": "true",
    "client_connection_check_interval": "1000",
    "idle_in_transaction_session_timeout": "60000",
    "application_name": "pgflows node",
}


class Login(Protocol):
    """How to log in as a role; raises NodeFailed where that is impossible."""

    async def connect_as(self, role: str, **options: Any) -> asyncpg.Connection[Any]: ...


class Statements:
    """Pools of node connections, one a role."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._pools: dict[str, RolePool] = {}

    async def run(self, role: str, text: str, entry: Entry, complete: Any) -> Result:
        """Runs one node and its checkpoint. `complete(result)` puts the node's own write into the
        entry.

        Raises NodeFailed, ClaimLost, or the connection's error.
        """
        if CONTROL.match(text):
            raise NodeFailed(
                "SQL execution failed: a node may not control its transaction; leave out "
                "BEGIN, COMMIT, ROLLBACK and SAVEPOINT"
            )
        pool = self._pools.setdefault(role, RolePool(role, self._login))
        async with pool.connection() as conn:
            try:
                return await self._exactly_once(conn, text, entry, complete)
            except asyncpg.PostgresError as e:
                if _lost(e):
                    raise
                if e.sqlstate not in OWN_TRANSACTION:
                    raise _failed(e) from e
            try:
                result = await _fetch(conn, text)
            except asyncpg.PostgresError as e:
                raise _failed(e) from e
            complete(result)
            await _checkpoint(conn, entry)
            return result

    @staticmethod
    async def _exactly_once(
        conn: asyncpg.Connection[Any], text: str, entry: Entry, complete: Any
    ) -> Result:
        transaction = conn.transaction()
        await transaction.start()
        try:
            result = await _fetch(conn, text)
            complete(result)
            await _checkpoint(conn, entry)
        except BaseException:
            if not conn.is_closed():
                await transaction.rollback()
            raise
        await transaction.commit()
        return result

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(p.close() for p in pools.values()))


def _lost(error: asyncpg.PostgresError) -> bool:
    """The session ended (shutdown, termination, timeout): the run goes on elsewhere."""
    return (error.sqlstate or "").startswith(("57P", "08")) or error.sqlstate == "25P03"


def _failed(error: asyncpg.PostgresError) -> NodeFailed:
    return NodeFailed(f"SQL execution failed: error returned from database: {error.args[0]}")


async def _fetch(conn: asyncpg.Connection[Any], text: str) -> Result:
    try:
        statement = await conn.prepare(text)
        records = await statement.fetch()
    except asyncpg.InterfaceError as e:
        raise NodeFailed(f"SQL execution failed: {e}") from e
    result = encode_rows(statement.get_attributes(), records)
    storable(result.text)
    return result


async def _checkpoint(conn: asyncpg.Connection[Any], entry: Entry) -> None:
    if entry.instance not in await write(conn, [entry]):
        raise ClaimLost(entry.instance)


class RolePool:
    """Up to ten connections of one role; more nodes queue for 30 s, idle connections are closed."""

    def __init__(self, role: str, login: Login) -> None:
        self._role = role
        self._login = login
        self._free: list[asyncpg.Connection[Any]] = []
        self._gate = asyncio.Semaphore(PER_ROLE)
        self._tidying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._gate.acquire()
        except TimeoutError:
            raise NodeFailed(
                f"no connection for role {self._role} became free within {QUEUE_SECONDS:g} s "
                f"({PER_ROLE} are in use)"
            ) from None
        try:
            conn = await self._take()
        except BaseException:
            self._gate.release()
            raise
        try:
            yield conn
        finally:
            task = asyncio.create_task(self._give_back(conn))
            self._tidying.add(task)
            task.add_done_callback(self._tidying.discard)

    async def _take(self) -> asyncpg.Connection[Any]:
        while self._free:
            conn = self._free.pop()
            if not conn.is_closed():
                return conn
        return await self._login.connect_as(
            self._role, statement_cache_size=0, server_settings=NODE_SETTINGS
        )

    async def _give_back(self, conn: asyncpg.Connection[Any]) -> None:
        """Discards what the node left in its session, after the node's caller went on."""
        try:
            if not conn.is_closed():
                if conn.is_in_transaction():
                    await conn.close(timeout=5)
                else:
                    await conn.execute("discard all")
                    self._free.append(conn)
                    asyncio.get_running_loop().call_later(IDLE_SECONDS, self._retire, conn)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            conn.terminate()
        finally:
            self._gate.release()

    def _retire(self, conn: asyncpg.Connection[Any]) -> None:
        if conn in self._free:
            self._free.remove(conn)
            conn.terminate()

    async def close(self) -> None:
        for task in list(self._tidying):
            await asyncio.wait([task], timeout=1)
        for conn in self._free:
            conn.terminate()
        self._free.clear()
