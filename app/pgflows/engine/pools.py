"""Connections that logged in as the roles whose statements they run, a few of each role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgflows import db
from pgflows.engine.results import NodeFailed

ONCE = f"select df._once({', '.join(f'${n}' for n in range(1, 19))})"
TIDY = """
close all; set session authorization default; reset all; unlisten *;
discard temp; discard sequences; select pg_advisory_unlock_all();
"""
PER_ROLE, QUEUE_SECONDS, IDLE_SECONDS = 10, 30.0, 60.0
NODE_SETTINGS = {
    "df.in_workflow": "true",
    "client_connection_check_interval": "1000",
    # as soon as the engine counts as dead, what it left open must not stand in its successor's way
    "idle_in_transaction_session_timeout": "4000",
    "application_name": "pgflows node",
}


class Login(Protocol):
    """How to log in as a role; raises NodeFailed where that is impossible."""

    async def connect_as(self, role: str, **options: Any) -> asyncpg.Connection[Any]: ...


class RolePool:
    """Up to ten connections of one role to one database (None: ours).

    More nodes queue for 30 s; idle connections are closed.
    """

    def __init__(self, role: str, database: str | None, login: Login) -> None:
        self._role = role
        self._database = database
        self._login = login
        self._free: list[Session] = []
        self._gate = asyncio.Semaphore(PER_ROLE)
        self._tidying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connection(self, text: str) -> AsyncIterator[Session]:
        """A session for one node, tidied after it."""
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._gate.acquire()
        except TimeoutError:
            raise NodeFailed(
                f"no connection for role {self._role} became free within {QUEUE_SECONDS:g} s "
                f"({PER_ROLE} are in use)"
            ) from None
        try:
            session = await self._take()
        except BaseException:
            self._gate.release()
            raise
        try:
            yield session
        finally:
            task = asyncio.create_task(self._give_back(session, text))
            self._tidying.add(task)
            task.add_done_callback(self._tidying.discard)

    async def _take(self) -> Session:
        while self._free:
            session = self._free.pop()
            if not session.conn.is_closed():
                return session
        return Session(
            await self._login.connect_as(
                self._role,
                database=self._database,
                statement_cache_size=0,
                server_settings=NODE_SETTINGS,
            )
        )

    async def _give_back(self, session: Session, text: str) -> None:
        """Discards what the node left in its session, after the node's caller went on."""
        try:
            if not session.conn.is_closed():
                if session.conn.is_in_transaction():
                    await session.conn.close(timeout=5)
                else:
                    await session.tidy(text)
                    self._free.append(session)
                    loop = asyncio.get_running_loop()
                    loop.call_later(IDLE_SECONDS, self._retire, session, session.used)
        except (*db.LOST, asyncpg.PostgresError, TimeoutError):
            session.conn.terminate()
        finally:
            self._gate.release()

    def _retire(self, session: Session, used: int) -> None:
        if session in self._free and session.used == used:
            self._free.remove(session)
            session.conn.terminate()

    async def close(self) -> None:
        for task in list(self._tidying):
            await asyncio.wait([task], timeout=1)
        for session in self._free:
            session.conn.terminate()
        self._free.clear()


class Session:
    """A node connection. `used` counts how often it was tidied."""

    def __init__(self, conn: asyncpg.Connection[Any]) -> None:
        self.conn = conn
        self.used = 0
        self._once: PreparedStatement[Any] | None = None

    async def once(self) -> PreparedStatement[Any]:
        """df._once, prepared; it outlives the tidying."""
        if self._once is None:
            self._once = await self.conn.prepare(ONCE)
        return self._once

    async def tidy(self, text: str) -> None:
        """What DISCARD ALL does, but that plans stay, and our own prepared statement with them."""
        self.used += 1
        if "prepare" in text.lower():
            self._once = None
            await self.conn.execute("discard all")
        else:
            await self.conn.execute(TIDY)
