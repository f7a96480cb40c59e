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
from pgflows.engine.limiter import Gate
from pgflows.engine.node.results import NodeFailed, Refused
from pgflows.errors import DatabaseGone, LoginRefused

TIDY = """
close all; set session authorization default; reset all; unlisten *;
discard temp; discard sequences; select pg_advisory_unlock_all();
"""
PER_ROLE, QUEUE_SECONDS, IDLE_SECONDS, SWEEP_SECONDS = 10, 30.0, 60.0, 0.02


class Login(Protocol):
    """How to log in as a role; raises LoginRefused or DatabaseGone where that is impossible."""

    async def connect_as(
        self, role: str, kind: Kind, *, database: str | None = None
    ) -> Connection: ...


class RolePool:
    """Up to ten connections of one role to one database (None: ours).

    More nodes queue for 30 s; idle connections are closed.
    """

    def __init__(self, role: str, database: str | None, login: Login) -> None:
        self._role = role
        self._database = database
        self._login = login
        self._free: list[Session] = []
        self._gate = Gate(PER_ROLE, QUEUE_SECONDS)
        self._tidying: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @asynccontextmanager
    async def connection(self, text: str) -> AsyncIterator[Session]:
        """A session for one node, tidied after it."""
        if not await self._gate.enter():
            raise NodeFailed(
                f"no connection for role {self._role} became free within {QUEUE_SECONDS:g} s "
                f"({PER_ROLE} are in use)"
            )
        try:
            session = await self._take()
        except BaseException:
            self._gate.release()
            raise
        try:
            yield session
        finally:
            if session.soiled or session.prepares(text):
                self._later(self._tidy(session, text))
            else:
                self._give_back(session)

    def crowded(self, enough: int) -> bool:
        """Whether this many more nodes wait for a connection, and not for long."""
        return self._gate.crowded(enough)

    async def _take(self) -> Session:
        while self._free:
            session = self._free.pop()
            if not session.conn.is_closed():
                session.soiled = True
                return session
        try:
            return Session(await self._login.connect_as(self._role, NODES, database=self._database))
        except DatabaseGone as e:
            raise NodeFailed(e.message) from e
        except LoginRefused as e:
            raise Refused(e.message) from e

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy(self, session: Session, text: str) -> None:
        """Discards what the node left in its session, after the node's caller went on."""
        try:
            if session.conn.is_closed():
                return
            if session.conn.is_in_transaction():
                await session.conn.close(timeout=5)
            else:
                await session.tidy(text)
        except ANY:
            session.conn.terminate()
        except BaseException:
            session.conn.terminate()  # what is half tidied is nobody's
            raise
        finally:
            self._give_back(session)

    def _give_back(self, session: Session) -> None:
        self._gate.release()
        if self._closed:
            session.conn.terminate()
        elif not session.conn.is_closed():
            session.since = time.monotonic()
            self._free.append(session)
            self._sweep_within(SWEEP_SECONDS if session.may_lock else IDLE_SECONDS)

    def _sweep_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            if self._sweeper.when() <= loop.time() + seconds:
                return
            self._sweeper.cancel()
        self._sweeper = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Releases the locks that idle sessions hold, and closes those that idle for long."""
        self._sweeper = None
        now = time.monotonic()
        for session in list(self._free):
            if now - session.since >= IDLE_SECONDS:
                self._free.remove(session)
                session.conn.terminate()
            elif session.may_lock and now - session.since >= SWEEP_SECONDS:
                self._later(self._unlock(session))
        if self._free:
            locks = any(s.may_lock for s in self._free)
            self._sweep_within(SWEEP_SECONDS if locks else IDLE_SECONDS)

    async def _unlock(self, session: Session) -> None:
        if not await self._gate.enter():
            return
        if session not in self._free or not session.may_lock:
            self._gate.release()  # it is somebody's, or was in the meantime
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
        for task in list(self._tidying):
            await asyncio.wait([task], timeout=1)
        for session in self._free:
            session.conn.terminate()
        self._free.clear()


class Session:
    """A node connection.

    `soiled`: its last node may have left anything in it; `may_lock`: locks of its own account only;
    `bystander`: the server ended it because another session's process died.
    """

    def __init__(self, conn: asyncpg.Connection[Any]) -> None:
        self.conn = conn
        self.since = 0.0
        self.soiled = True
        self.may_lock = False
        self.bystander = False
        self._once: dict[int, PreparedStatement[Any]] = {}
        conn.add_log_listener(self._on_notice)

    def _on_notice(self, _conn: Any, message: Any) -> None:
        self.bystander |= message.sqlstate == CRASHED

    async def once(self, *args: Any) -> Any:
        """df._once, prepared; it leaves nothing behind but locks, also where it fails."""
        statement = self._once.get(len(args))
        if statement is None:
            places = ", ".join(f"${n}" for n in range(1, len(args) + 1))
            statement = await self.conn.prepare(f"select df._once({places})")
            self._once[len(args)] = statement
        self.may_lock = True
        try:
            answer = await statement.fetchval(*args)
        except asyncpg.PostgresError:
            self.soiled = False
            raise
        self.soiled = False
        return answer

    async def bare(self) -> asyncpg.Connection[Any]:
        """The connection, for what takes more trips; the node before holds no lock any more."""
        if self.may_lock:
            await self.unlock()
        self.soiled = True
        return self.conn

    def prepares(self, text: str) -> bool:
        """Whether a node may have made prepared statements."""
        return "prepare" in text.lower()

    async def tidy(self, text: str) -> None:
        """What DISCARD ALL does, but that plans stay, and our own prepared statement with them."""
        if self.prepares(text):
            self._once.clear()
            await self.conn.execute("discard all")
            await self.conn.execute(NODES.assignments)
        else:
            await self.conn.execute(TIDY + NODES.assignments)
        self.soiled = self.may_lock = False

    async def unlock(self) -> None:
        await self.conn.execute("select pg_advisory_unlock_all()")
        self.may_lock = False
