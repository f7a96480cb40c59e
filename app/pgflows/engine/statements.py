"""Users' SQL nodes, on connections that logged in as the role that submitted the instance.

Effect and checkpoint commit in one transaction, so a node's effect happens exactly once. What
cannot run inside a transaction (VACUUM, a CALL that commits) runs by itself first and is
checkpointed after: at least once.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgflows import db
from pgflows.engine.checkpoint import ClaimLost, Columns, Ending, Entry, Write, write
from pgflows.engine.results import NodeFailed, Result, encode_rows, storable
from pgflows.engine.wrapping import Key, Shape, Shapes

OWN_TRANSACTION = ("25001", "2D000")
VICTIM, TRIES = ("40001", "40P01"), 6
CONTROL = re.compile(
    r"^(?:\s|--[^\n]*\n|/\*.*?\*/)*(begin|start\s+transaction|commit|end|rollback|abort|savepoint|release"
    r"|prepare\s+transaction)\b",
    re.IGNORECASE | re.DOTALL,
)
CLAIM_LOST, UNWRAPPABLE = "PF199", ("42", "0A")
ONCE = f"select df._once({', '.join(f'${n}' for n in range(1, 19))})"
TIDY = """
close all; set session authorization default; reset all; unlisten *;
discard temp; discard sequences; select pg_advisory_unlock_all();
"""
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


@dataclass(frozen=True, slots=True)
class Statement:
    """One user's node: its text, what waits to be written before it, and what completes with it.

    `key` names its shape: the same for texts that differ in values of the same kinds only.
    """

    role: str
    text: str
    key: Key | None
    entry: Entry
    nodes: tuple[str, ...]
    execution: str
    ends: bool


class Statements:
    """Pools of node connections, one a role."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._pools: dict[str, RolePool] = {}
        self._shapes = Shapes()

    async def run(self, statement: Statement) -> Result:
        """Runs one node and its checkpoint.

        Raises NodeFailed, ClaimLost, or the connection's error.
        """
        if CONTROL.match(statement.text):
            raise NodeFailed(
                "SQL execution failed: a node may not control its transaction; leave out "
                "BEGIN, COMMIT, ROLLBACK and SAVEPOINT"
            )
        role = statement.role
        pool = self._pools.setdefault(role, RolePool(role, self._login))
        async with pool.connection(statement.text) as session:
            for left in range(TRIES - 1, -1, -1):
                try:
                    return await self._exactly_once(session, statement)
                except asyncpg.PostgresError as e:
                    if _lost(e):
                        raise
                    if e.sqlstate in OWN_TRANSACTION:
                        break
                    if e.sqlstate not in VICTIM or not left:
                        raise _failed(e) from e
                # nothing of it happened, and the other side may go on by now
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - spreads load
            try:
                result, _ = await _fetch(session.conn, statement.text)
            except asyncpg.PostgresError as e:
                raise _failed(e) from e
            await _checkpoint(session.conn, statement, result)
            return result

    async def _exactly_once(self, session: Session, statement: Statement) -> Result:
        """In one trip where the statement's shape is known, in a transaction of five otherwise."""
        shape = self._shapes.find(statement.key) if statement.key else None
        if shape is not None and statement.key is not None:
            try:
                return await _one_trip(session, statement, shape)
            except asyncpg.PostgresError as e:
                if e.sqlstate == CLAIM_LOST:
                    raise ClaimLost(statement.entry.instance) from e
                if (e.sqlstate or "")[:2] not in UNWRAPPABLE:
                    raise
                self._shapes.put(statement.key, None)
        conn = session.conn
        transaction = conn.transaction()
        await transaction.start()
        try:
            result, attributes = await _fetch(conn, statement.text)
            await _checkpoint(conn, statement, result)
        except (asyncpg.PostgresError, NodeFailed, ClaimLost) as e:
            if not conn.is_closed() and not db.is_lost(e):
                await transaction.rollback()
            raise
        except BaseException:
            conn.terminate()  # in the middle of something: the server rolls back
            raise
        await transaction.commit()
        if statement.key:
            self._shapes.learn(statement.key, statement.text, attributes)
        return result

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(p.close() for p in pools.values()))


def _lost(error: asyncpg.PostgresError) -> bool:
    """The session ended (shutdown, termination, timeout): the run goes on elsewhere."""
    return (error.sqlstate or "").startswith(("57P", "08")) or error.sqlstate == "25P03"


def _failed(error: asyncpg.PostgresError) -> NodeFailed:
    return NodeFailed(f"SQL execution failed: error returned from database: {error.args[0]}")


async def _fetch(
    conn: asyncpg.Connection[Any], text: str
) -> tuple[Result, Sequence[asyncpg.Attribute]]:
    try:
        statement = await conn.prepare(text)
        records = await statement.fetch()
    except asyncpg.InterfaceError as e:
        if conn.is_closed():
            raise
        raise NodeFailed(f"SQL execution failed: {e}") from e
    attributes = statement.get_attributes()
    result = encode_rows(attributes, records)
    storable(result.text)
    return result, attributes


async def _checkpoint(conn: asyncpg.Connection[Any], statement: Statement, result: Result) -> None:
    """Writes the node's completion, and the instance's if it is the last, and what waits."""
    entry = statement.entry
    own = Write(statement.nodes, "completed", result, statement.execution)
    ending = Ending("completed") if statement.ends else None
    whole = replace(entry, writes=[*entry.writes, own], ending=ending)
    if entry.instance not in await write(conn, [whole]):
        raise ClaimLost(entry.instance)


async def _one_trip(session: Session, statement: Statement, shape: Shape) -> Result:
    entry, columns = statement.entry, Columns()
    columns.add(entry.instance, entry.writes, without=statement.nodes)
    state = entry.state
    once = await session.once()
    text = await once.fetchval(
        shape.wrap(statement.text),
        not shape.keeps_order,
        statement.nodes,
        statement.execution,
        statement.ends,
        entry.instance,
        entry.token,
        *columns.arguments(),
        *columns.kept(),
        state.number if state else None,
        state.text if state else None,
        columns.consumed,
    )
    return Result.of(json.loads(text)) if shape.has_json else Result(text)


class RolePool:
    """Up to ten connections of one role; more nodes queue for 30 s, idle connections are closed."""

    def __init__(self, role: str, login: Login) -> None:
        self._role = role
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
                self._role, statement_cache_size=0, server_settings=NODE_SETTINGS
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
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
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
