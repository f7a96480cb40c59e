"""How a service reads and changes its database, so that neither can keep the other waiting.

Reads and changes have connections of their own. A change may have to wait for a transaction that
somebody left open: it waits for a bounded time, and of several changes to one thing only one has a
connection meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import asyncpg

from pgflows.database.connections import CHANGES, READS, Pool, open_pool
from pgflows.database.faults import from_sqlstate
from pgflows.errors import InProgress, ServiceUnavailable

PoolConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

CONNECTION_SECONDS = 5.0  # a request waits for a free connection
TURN_SECONDS = 3.0  # a change waits for another one to the same thing, in this process
STATEMENT_SECONDS = 30.0  # then the database counts as away
RELEASE_SECONDS = 5.0  # a connection that was given up gets to become usable again


class Access:
    """The connections of one service."""

    def __init__(self, reads: Pool, changes: Pool) -> None:
        self._reads = reads
        self._changes = changes
        self._turns: dict[Hashable, _Turn] = {}

    @property
    def size(self) -> int:
        """How many connections are open."""
        return self._reads.get_size() + self._changes.get_size()

    @property
    def idle(self) -> int:
        """How many of them are free."""
        return self._reads.get_idle_size() + self._changes.get_idle_size()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PoolConnection]:
        """A connection that only reads."""
        async with _connection(self._reads) as connection:
            yield connection

    async def read(self, statement: str, *args: object) -> asyncpg.Record:
        """The one row of a statement that changes nothing."""
        async with self.reading() as connection:
            return await _row(connection, statement, *args)

    async def change(
        self, statement: str, *args: object, subject: Hashable = None, busy: str
    ) -> asyncpg.Record:
        """The one row of a statement that changes something.

        Changes of one `subject` take turns. Raises InProgress with the message `busy` if a
        transaction that does not end holds what the statement needs.
        """
        try:
            async with self._turn(subject), _connection(self._changes) as connection:
                return await _row(connection, statement, *args)
        except (_NoTurn, asyncpg.LockNotAvailableError) as e:
            raise InProgress(busy) from e

    @asynccontextmanager
    async def _turn(self, subject: Hashable) -> AsyncIterator[None]:
        if subject is None:
            yield
            return
        turn = self._turns.setdefault(subject, _Turn())
        turn.users += 1
        try:
            await turn.take()
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[subject]


class _NoTurn(Exception):
    """Another change to the same thing did not end in time."""


class _Turn:
    """One subject's turns, and how many hold or await one."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0

    async def take(self) -> None:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self.lock.acquire()
        except TimeoutError as e:
            raise _NoTurn from e


@asynccontextmanager
async def open_access(dsn: str, size: int) -> AsyncIterator[Access]:
    """Half of the connections, and at least one, for reads; the others for changes."""
    reads = max(1, size // 2)
    async with AsyncExitStack() as stack:
        yield Access(
            await stack.enter_async_context(open_pool(dsn, size=reads, kind=READS)),
            await stack.enter_async_context(
                open_pool(dsn, size=max(1, size - reads), kind=CHANGES)
            ),
        )


@asynccontextmanager
async def _connection(pool: Pool) -> AsyncIterator[PoolConnection]:
    try:
        connection = await pool.acquire(timeout=CONNECTION_SECONDS)
    except TimeoutError as e:
        raise ServiceUnavailable(
            f"The service got no connection to its database within {CONNECTION_SECONDS:g} seconds."
        ) from e
    try:
        yield connection
    finally:
        await pool.release(connection, timeout=RELEASE_SECONDS)


async def _row(connection: PoolConnection, statement: str, *args: object) -> asyncpg.Record:
    try:
        row = await connection.fetchrow(statement, *args, timeout=STATEMENT_SECONDS)
    except asyncpg.PostgresError as e:
        if ours := from_sqlstate(e):
            raise ours from e
        raise
    assert row is not None  # noqa: S101 - every statement here is a call of a function
    return row
