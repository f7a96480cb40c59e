"""Connections that logged in as the roles whose statements they run, a few of each role."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgflows.database.connections import NODES, Connection, Kind
from pgflows.database.faults import ANY, CRASHED
from pgflows.engine.limiter import Limiter
from pgflows.engine.node.results import NodeFailed, Refused
from pgflows.engine.sql.dates import set_codecs
from pgflows.errors import DatabaseGone, LoginRefused

RESET = """
close all; set session authorization default; reset all; unlisten *;
discard temp; discard sequences; select pg_advisory_unlock_all();
"""
PER_ROLE = 10  # connections of one role
QUEUE_SECONDS = 30.0  # the longest wait for a connection
IDLE_SECONDS = 60.0  # an idle connection is closed after this
UNLOCK_SECONDS = 0.02  # an idle connection gives its advisory locks back after this
CLOSE_SECONDS = 5.0  # the longest wait for a connection that is closed in order


class Login(Protocol):
    """How to log in as a role; raises LoginRefused or DatabaseGone if that is impossible."""

    async def connect_as(
        self, role: str, kind: Kind, *, database: str | None = None
    ) -> Connection: ...


class RolePool:
    """Up to ten connections of one role to one database (None: the engine's).

    Further nodes queue for 30 s. Idle connections are closed.
    """

    def __init__(self, role: str, database: str | None, login: Login) -> None:
        self._role = role
        self._database = database
        self._login = login
        self._free: list[NodeSession] = []
        self._limiter = Limiter(PER_ROLE, QUEUE_SECONDS)
        self._resetting: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @asynccontextmanager
    async def connection(self, text: str) -> AsyncIterator[NodeSession]:
        """A session for one node, reset after it."""
        if not await self._limiter.enter():
            raise NodeFailed(
                f"no connection for role {self._role} became free within {QUEUE_SECONDS:g} s "
                f"({PER_ROLE} are in use)"
            )
        try:
            session = await self._take()
        except BaseException:
            self._limiter.release()
            raise
        try:
            yield session
        finally:
            if session.needs_reset or session.prepares(text):
                self._later(self._reset(session, text))
            else:
                self._give_back(session)

    def crowded(self, limit: int) -> bool:
        """Whether more nodes than this wait for a connection, and not for long."""
        return self._limiter.crowded(limit)

    async def _take(self) -> NodeSession:
        while self._free:
            session = self._free.pop()
            if not session.conn.is_closed():
                session.needs_reset = True
                return session
        try:
            conn = await self._login.connect_as(self._role, NODES, database=self._database)
        except DatabaseGone as e:
            raise NodeFailed(e.message) from e
        except LoginRefused as e:
            raise Refused(e.message) from e
        await set_codecs(conn)
        return NodeSession(conn)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._resetting.add(task)
        task.add_done_callback(self._resetting.discard)

    async def _reset(self, session: NodeSession, text: str) -> None:
        """Discards what the node left in its session, while the node's caller goes on."""
        try:
            if session.conn.is_closed():
                return
            if session.conn.is_in_transaction():
                await session.conn.close(timeout=CLOSE_SECONDS)
            else:
                await session.reset(text)
        except ANY:
            session.conn.terminate()
        except BaseException:
            session.conn.terminate()  # half reset, it must not be used again
            raise
        finally:
            self._give_back(session)

    def _give_back(self, session: NodeSession) -> None:
        self._limiter.release()
        if self._closed:
            session.conn.terminate()
        elif not session.conn.is_closed():
            session.since = time.monotonic()
            self._free.append(session)
            self._sweep_within(UNLOCK_SECONDS if session.may_lock else IDLE_SECONDS)

    def _sweep_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            if self._sweeper.when() <= loop.time() + seconds:
                return
            self._sweeper.cancel()
        self._sweeper = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Releases the locks of idle sessions, and closes those that have been idle for long."""
        self._sweeper = None
        now = time.monotonic()
        for session in list(self._free):
            if now - session.since >= IDLE_SECONDS:
                self._free.remove(session)
                session.conn.terminate()
            elif session.may_lock and now - session.since >= UNLOCK_SECONDS:
                self._later(self._unlock(session))
        if self._free:
            locks = any(s.may_lock for s in self._free)
            self._sweep_within(UNLOCK_SECONDS if locks else IDLE_SECONDS)

    async def _unlock(self, session: NodeSession) -> None:
        if not await self._limiter.enter():
            return
        if session not in self._free or not session.may_lock:
            self._limiter.release()  # a node uses it, or has used it meanwhile
            return
        self._free.remove(session)
        try:
            await session.unlock()
        except ANY:
            session.conn.terminate()
        except BaseException:
            session.conn.terminate()
            raise
        finally:
            self._give_back(session)

    async def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in list(self._resetting):
            await asyncio.wait([task], timeout=1)
        for session in self._free:
            session.conn.terminate()
        self._free.clear()


class NodeSession:
    """A node connection.

    `needs_reset`: its last node may have left anything in it. `may_lock`: its last node may have
    left advisory locks, and nothing else. `server_crashed`: the server ended it because the process
    of another session died.
    """

    def __init__(self, conn: asyncpg.Connection[Any]) -> None:
        self.conn = conn
        self.since = 0.0
        self.needs_reset = True
        self.may_lock = False
        self.server_crashed = False
        self._once: dict[int, PreparedStatement[Any]] = {}
        conn.add_log_listener(self._on_notice)

    def _on_notice(self, _conn: Any, message: Any) -> None:
        self.server_crashed |= message.sqlstate == CRASHED

    async def once(self, *args: Any) -> Any:
        """df._once, prepared. It leaves nothing behind but locks, even if it fails."""
        statement = self._once.get(len(args))
        if statement is None:
            places = ", ".join(f"${n}" for n in range(1, len(args) + 1))
            statement = await self.conn.prepare(f"select df._once({places})")
            self._once[len(args)] = statement
        self.may_lock = True
        try:
            answer = await statement.fetchval(*args)
        except asyncpg.PostgresError:
            self.needs_reset = False
            raise
        self.needs_reset = False
        return answer

    async def bare(self) -> asyncpg.Connection[Any]:
        """The connection, for what takes several trips; locks of the node before are gone."""
        if self.may_lock:
            await self.unlock()
        self.needs_reset = True
        return self.conn

    def prepares(self, text: str) -> bool:
        """Whether a node may have made prepared statements."""
        return "prepare" in text.lower()

    async def reset(self, text: str) -> None:
        """Does what DISCARD ALL does, except that plans and our own prepared statement stay."""
        if self.prepares(text):
            self._once.clear()
            await self.conn.execute("discard all")
            await self.conn.execute(NODES.assignments)
        else:
            await self.conn.execute(RESET + NODES.assignments)
        self.needs_reset = self.may_lock = False

    async def unlock(self) -> None:
        await self.conn.execute("select pg_advisory_unlock_all()")
        self.may_lock = False
