"""Users' SQL nodes, on connections that logged in as the role that submitted the instance.

Effect and checkpoint commit in one transaction, so a node's effect happens exactly once. What
cannot run inside a transaction (VACUUM, a CALL that commits) runs by itself first and is
checkpointed afterwards: it happens at least once. So do the statements of instances that run in
another database.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import asyncpg

from pgflows.crash import crash_point
from pgflows.engine.node.results import NodeFailed, Refused, Result, encode_rows, storable
from pgflows.engine.sql.one_trip import Key, Wrapping, Wrappings
from pgflows.engine.sql.pools import Login, NodeSession, RolePool
from pgflows.engine.write.checkpoint import ClaimLost, Columns, Ending, Entry, Write, write

T = TypeVar("T")
OWN_TRANSACTION = ("25001", "2D000")
VICTIM = ("40001", "40P01")  # PostgreSQL picked the statement to resolve a conflict
TRIES = 6  # of a statement that is picked
CONTROL = re.compile(
    r"^(?:\s|--[^\n]*\n|/\*.*?\*/)*(begin|start\s+transaction|commit|end|rollback|abort|savepoint|release"
    r"|prepare\s+transaction)\b",
    re.IGNORECASE | re.DOTALL,
)
FATAL = ("FATAL", "PANIC")  # severities of what ends a session
READ_ONLY = "25006"
TRANSACTION_TIMEOUT = "25P04"
CANNOT_WRITE = (
    "select pg_catalog.pg_is_in_recovery() or exists (select from pg_catalog.pg_settings "
    "where name = 'default_transaction_read_only' and setting = 'on' "
    "and source not in ('user', 'database user', 'session'))"
)
CLAIM_LOST = "PF199"
UNWRAPPABLE = ("42", "0A")  # classes of errors that the wrapping may have caused


class SessionEnded(ConnectionError):
    """The session ended in the middle of a node's statement, perhaps because of it.

    `silent`: the server said nothing, as when the process of the session died. `server_crashed`:
    the process of another session died.
    """

    def __init__(self, error: Exception, *, silent: bool, server_crashed: bool) -> None:
        super().__init__(f"the session of its statement ended: {error}")
        self.silent = silent
        self.server_crashed = server_crashed


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
    """Pools of node connections, one a role and database."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._pools: dict[tuple[str, str | None], RolePool] = {}
        self._wrappings = Wrappings()

    async def execute(self, statement: Statement) -> Result:
        """Runs one node and its checkpoint.

        Raises NodeFailed, ClaimLost, or the connection's error.
        """
        crash_point("before_statement")
        result = await self._execute(statement)
        crash_point("after_statement")
        return result

    async def _execute(self, statement: Statement) -> Result:
        _check_control(statement.text)
        async with self._pool(statement.role, None).connection(statement.text) as session:
            try:
                return await _persistent(lambda: self._exactly_once(session, statement))
            except asyncpg.PostgresError as e:
                if e.sqlstate == READ_ONLY:
                    await _check_writable(session, e)
                elif e.sqlstate not in OWN_TRANSACTION:
                    raise _failed(e, session) from None
            try:
                result, _ = await _fetch(await session.bare(), statement.text)
            except asyncpg.PostgresError as e:
                raise _failed(e, session) from None
            await session.conn.execute("begin read write")  # the role's default may be read only
            await _checkpoint(session.conn, statement, result)
            await session.conn.execute("commit")
            return result

    async def execute_in(self, database: str, role: str, text: str) -> Result:
        """Runs a statement in another database; the caller records it.

        Raises NodeFailed or the connection's error.
        """
        _check_control(text)
        async with self._pool(role, database).connection(text) as session:
            try:
                conn = await session.bare()
                result, _ = await _persistent(lambda: _fetch(conn, text))
            except asyncpg.PostgresError as e:
                raise _failed(e, session) from None
            return result

    def crowded(self, limit: int) -> bool:
        """Whether more statements of a role than this wait for a connection, and not for long."""
        return any(pool.crowded(limit) for pool in self._pools.values())

    def _pool(self, role: str, database: str | None) -> RolePool:
        key = (role, database)
        if key not in self._pools:
            self._pools[key] = RolePool(role, database, self._login)
        return self._pools[key]

    async def _exactly_once(self, session: NodeSession, statement: Statement) -> Result:
        """In one round trip if the statement's wrapping is known, otherwise in five."""
        wrapping = self._wrappings.find(statement.key) if statement.key else None
        if wrapping is not None and statement.key is not None:
            try:
                return await _one_trip(session, statement, wrapping)
            except asyncpg.PostgresError as e:
                if e.sqlstate == CLAIM_LOST and not await _holds(session, statement.entry):
                    raise ClaimLost(statement.entry.instance) from e
                if (e.sqlstate or "")[:2] not in UNWRAPPABLE:
                    raise
                self._wrappings.put(statement.key, None)
        conn = await session.bare()
        transaction = conn.transaction()
        await transaction.start()
        try:
            result, attributes = await _fetch(conn, statement.text)
            await _checkpoint(conn, statement, result)
        except (asyncpg.PostgresError, NodeFailed, ClaimLost) as e:
            if not conn.is_closed() and getattr(e, "severity_en", None) not in FATAL:
                await transaction.rollback()
            raise
        except BaseException:
            conn.terminate()  # interrupted in the middle: the server rolls back
            raise
        await transaction.commit()
        if statement.key:
            self._wrappings.learn(statement.key, statement.text, attributes)
        return result

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(p.close() for p in pools.values()))


async def _check_writable(session: NodeSession, error: asyncpg.PostgresError) -> None:
    """Raises ConnectionError if the server or the database is read-only, not this role alone."""
    if await session.conn.fetchval(CANNOT_WRITE):
        session.conn.terminate()
        raise ConnectionError(f"the database is read-only: {error}") from error


def _lost(error: asyncpg.PostgresError) -> bool:
    """The session ended (shutdown, termination), so the run goes on elsewhere. If a time-out ended
    it that the role has for its transactions, the node failed.
    """
    if error.sqlstate == TRANSACTION_TIMEOUT:
        return False
    severity = getattr(error, "severity_en", None)
    return severity in FATAL if severity else isinstance(error, asyncpg.PostgresConnectionError)


def _check_control(text: str) -> None:
    if CONTROL.match(text):
        raise Refused(
            "SQL execution failed: a node may not control its transaction; leave out "
            "BEGIN, COMMIT, ROLLBACK and SAVEPOINT"
        )


async def _persistent(attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries again if PostgreSQL picked the statement as a victim: nothing of it happened, and the
    other side may have ended by now.
    """
    for _ in range(TRIES - 1):
        try:
            return await attempt()
        except asyncpg.PostgresError as e:
            if e.sqlstate not in VICTIM:
                raise
        await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - spreads load
    return await attempt()


def _failed(error: asyncpg.PostgresError, session: NodeSession) -> NodeFailed | SessionEnded:
    """Tells the failure of a node from the loss of its session."""
    if _lost(error):
        crashed = session.server_crashed
        silent = isinstance(error, asyncpg.PostgresConnectionError) and not crashed
        return SessionEnded(error, silent=silent, server_crashed=crashed)
    text = f"SQL execution failed: error returned from database: {error.args[0]}"
    return NodeFailed(text, error.sqlstate)


async def _fetch(
    conn: asyncpg.Connection[Any], text: str
) -> tuple[Result, Sequence[asyncpg.Attribute]]:
    try:
        statement = await conn.prepare(text)
        records = await statement.fetch()
        attributes = statement.get_attributes()
        result = encode_rows(attributes, records)
    except asyncpg.InterfaceError as e:
        if conn.is_closed():
            raise
        raise NodeFailed(f"SQL execution failed: {e}") from e
    except (ValueError, ArithmeticError, RecursionError) as e:
        raise NodeFailed(
            f"SQL execution failed: the result holds a value that cannot be read ({e}); "
            "cast it to text"
        ) from e
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


async def _holds(session: NodeSession, entry: Entry) -> bool:
    """Whether the claim still holds: a node's own text may raise any error, PF199 too."""
    fence = "select cardinality(df._fence(array[$1::text], array[$2::uuid]))"
    return bool(await session.conn.fetchval(fence, entry.instance, entry.token))


async def _one_trip(session: NodeSession, statement: Statement, wrapping: Wrapping) -> Result:
    entry = statement.entry
    before: tuple[Any, ...] = ()  # most nodes have nothing to write but themselves
    if entry.writes or entry.state is not None:
        columns = Columns()
        columns.add(entry.instance, entry.writes, without=statement.nodes)
        before = (
            *columns.arguments(),
            *columns.kept(),
            entry.state.number if entry.state else None,
            entry.state.text if entry.state else None,
            columns.consumed,
        )
    text = await session.once(
        wrapping.wrap(statement.text),
        not wrapping.keeps_order,
        statement.nodes,
        statement.execution,
        statement.ends,
        entry.instance,
        entry.token,
        *before,
    )
    return Result.of(json.loads(text)) if wrapping.has_json else Result(text)
