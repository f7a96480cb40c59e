"""Compiled nodes in batches: one server call and one commit for many runs.

The statements of the renderer only compute and call take, put and finish. Therefore a transaction
can hold a whole batch of them; each fails alone. A run's pending checkpoints travel in the same
statement, so the answer of an HTTP call becomes durable together with the node that follows it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg

from pgflows.compiled import Prepared
from pgflows.crash import crash_point
from pgflows.database.faults import is_away, is_unstorable
from pgflows.database.roles import RUN_ROLE
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.write.checkpoint import ClaimLost, Columns, Spoiled, State, Write

log = logging.getLogger("pgflows.engine")

MOST_NODES = 50  # nodes in one batch
RUN = (
    "select * from df._run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20)"
)


@dataclass(slots=True)
class BatchedNode:
    """One compiled node, and what is to be written with it."""

    instance: str
    token: uuid.UUID
    prepared: Prepared
    seq: int
    execution: str
    completes: tuple[str, ...]
    ends: bool
    writes: list[Write]
    state: State | None
    done: asyncio.Future[Result] = field(init=False)


class Batches:
    """The compiled nodes that wait, and the loop of each connection that runs them."""

    def __init__(self) -> None:
        self._pending: list[BatchedNode] = []
        self._wake = asyncio.Event()
        self._prepared: WeakKeyDictionary[asyncpg.Connection[Any], dict[str, str | None]] = (
            WeakKeyDictionary()
        )
        self.batches = 0
        self.nodes = 0

    def serve(self, role: str) -> bool:
        """Whether compiled nodes of this role can run in a batch."""
        return role == RUN_ROLE

    @property
    def backlog(self) -> int:
        """Nodes that wait for a batch."""
        return len(self._pending)

    async def submit(self, node: BatchedNode) -> Result:
        """Raises NodeFailed, ClaimLost, Spoiled, or the connection's error."""
        crash_point("before_batch")
        node.done = asyncio.get_running_loop().create_future()
        self._pending.append(node)
        self._wake.set()
        result = await node.done
        crash_point("after_batch")
        return result

    async def keep_running(self, conn: asyncpg.Connection[Any]) -> None:
        """Runs batches on this connection until it fails; several connections may do so."""
        while True:
            await self._wake.wait()
            batch, self._pending = self._pending[:MOST_NODES], self._pending[MOST_NODES:]
            if not self._pending:
                self._wake.clear()
            if not batch:
                continue
            try:
                await self._batch(conn, batch)
            except BaseException as e:
                told = e if isinstance(e, Exception) else ClaimLost("the engine stops")
                for node in batch:
                    _settle(node, told)
                raise

    async def _texts(
        self, conn: asyncpg.Connection[Any], batch: list[BatchedNode]
    ) -> tuple[list[str], list[str]]:
        """What the server is to run: a statement per node, and one for all nodes of a text."""
        texts = []
        alike: dict[str, list[tuple[str, int, int]]] = {}
        for n, node in enumerate(batch, 1):
            name = await self._name(conn, node.prepared)
            if name is None:
                texts.append(node.prepared.filled(node.instance, node.seq))
                continue
            texts.append(f"execute {name} ('{node.instance}', {node.seq})")
            alike.setdefault(name, []).append((node.instance, node.seq, n))
        return texts, [
            f"execute each_{name} ({', '.join(map(_array, zip(*entries, strict=True)))})"
            for name, entries in alike.items()
        ]

    async def _name(self, conn: asyncpg.Connection[Any], prepared: Prepared) -> str | None:
        """A text is prepared once a session, so it is planned once.

        None where PostgreSQL refuses that: then it is run as text, and fails its own node only.
        """
        known = self._prepared.setdefault(conn, {})
        if prepared.one not in known:
            name: str | None = f"node_{len(known) + 1}"
            try:
                await conn.execute(f"prepare {name} {prepared.one}")
                await conn.execute(f"prepare each_{name} {prepared.each}")
            except asyncpg.PostgresError as e:
                if is_away(e):
                    raise
                log.warning("a compiled statement cannot be prepared (%s): %s", e, prepared.one)
                name = None
            known[prepared.one] = name
        return known[prepared.one]

    async def _batch(self, conn: asyncpg.Connection[Any], batch: list[BatchedNode]) -> None:
        self.batches += 1
        columns = Columns()
        entries: list[int] = []
        completed: list[str] = []
        for n, node in enumerate(batch, 1):
            columns.add(node.instance, node.writes, without=node.completes)
            entries.extend(n for _ in node.completes)
            completed.extend(node.completes)
        states = [(n.instance, n.state) for n in batch if n.state is not None]
        texts, each = await self._texts(conn, batch)
        try:
            rows = await conn.fetch(
                RUN,
                [n.instance for n in batch],
                [n.token for n in batch],
                texts,
                each,
                [n.execution for n in batch],
                [n.ends for n in batch],
                entries,
                completed,
                *columns.arguments(),
                *columns.kept(),
                [i for i, _ in states],
                [s.number for _, s in states],
                [s.text for _, s in states],
                columns.consumed,
            )
        except (asyncpg.PostgresError, ValueError) as e:
            if not is_unstorable(e):
                raise
            if len(batch) == 1:
                _settle(batch[0], Spoiled(str(e)))
                return
            middle = len(batch) // 2
            await self._batch(conn, batch[:middle])
            await self._batch(conn, batch[middle:])
            return
        self.nodes += len(batch)
        for node, row in zip(batch, rows, strict=True):
            if not row["held"]:
                _settle(node, ClaimLost(node.instance))
            elif row["error"] is not None:
                _settle(
                    node,
                    NodeFailed(
                        f"SQL execution failed: error returned from database: {row['error']}",
                        row["code"],
                    ),
                )
            elif not node.done.done():
                node.done.set_result(Result(row["result"]))


def _array(values: tuple[Any, ...]) -> str:
    """A literal of names and numbers that need no quotes."""
    return f"'{{{','.join(map(str, values))}}}'"


def _settle(node: BatchedNode, error: Exception) -> None:
    if not node.done.done():
        node.done.set_exception(error)
        node.done.exception()
