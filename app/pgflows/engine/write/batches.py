"""Compiled nodes in batches: one server call and one commit for many runs.

The statements of our renderer only compute and call take, put and finish, so many of them can
share a transaction; each runs in a subtransaction and fails alone. Checkpoints that its run has
pending ride along, so the answer of an HTTP call becomes durable together with the node that
follows it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg

from pgflows.compiled import Shape, unprepared
from pgflows.database.faults import is_away, is_unstorable
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.write.checkpoint import ClaimLost, Columns, Spoiled, State, Write

log = logging.getLogger("pgflows.engine")

RUN = (
    "select * from df._run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20)"
)


@dataclass(slots=True)
class Ride:
    """One compiled node on its way: a text, or a shape with the strand's seq."""

    instance: str
    token: uuid.UUID
    text: str
    shape: Shape | None
    seq: int
    execution: str
    nodes: tuple[str, ...]
    ends: bool
    writes: list[Write]
    state: State | None
    done: asyncio.Future[Result] = field(init=False)


class Lane:
    """Connections that logged in as one role, each running a batch at a time."""

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._pending: list[Ride] = []
        self._wake = asyncio.Event()
        self._prepared: WeakKeyDictionary[asyncpg.Connection[Any], dict[str, str | None]] = (
            WeakKeyDictionary()
        )
        self.batches = 0
        self.rides = 0

    @property
    def backlog(self) -> int:
        """Rides that wait for a batch."""
        return len(self._pending)

    async def run(self, ride: Ride) -> Result:
        """Raises NodeFailed, ClaimLost, Spoiled, or the connection's error."""
        ride.done = asyncio.get_running_loop().create_future()
        self._pending.append(ride)
        self._wake.set()
        return await ride.done

    async def drive(self, conn: asyncpg.Connection[Any]) -> None:
        """Runs batches on this connection for ever; several may drive one lane."""
        while True:
            await self._wake.wait()
            batch, self._pending = self._pending[: self._most], self._pending[self._most :]
            if not self._pending:
                self._wake.clear()
            if not batch:
                continue
            try:
                await self._batch(conn, batch)
            except BaseException as e:
                told = e if isinstance(e, Exception) else ClaimLost("the engine stops")
                for ride in batch:
                    _settle(ride, told)
                raise

    async def _texts(
        self, conn: asyncpg.Connection[Any], batch: list[Ride]
    ) -> tuple[list[str], list[str]]:
        """What the server is to run: a statement per ride, and one per shape that many share."""
        texts = []
        alike: dict[str, list[tuple[str, int, int]]] = {}
        for n, ride in enumerate(batch, 1):
            if ride.shape is None:
                texts.append(unprepared(ride.text))
                continue
            name = await self._name(conn, ride.shape)
            if name is None:
                texts.append(ride.shape.filled(ride.instance, ride.seq))
                continue
            texts.append(f"execute {name} ('{ride.instance}', {ride.seq})")
            if ride.shape.each is not None:
                alike.setdefault(name, []).append((ride.instance, ride.seq, n))
        return texts, [
            f"execute each_{name} ({', '.join(map(_array, zip(*entries, strict=True)))})"
            for name, entries in alike.items()
        ]

    async def _name(self, conn: asyncpg.Connection[Any], shape: Shape) -> str | None:
        """A shape is prepared once a session, so it is planned once.

        None where PostgreSQL refuses that: then it is run as text, and fails its own node only.
        """
        known = self._prepared.setdefault(conn, {})
        if shape.one not in known:
            name: str | None = f"node_{len(known) + 1}"
            try:
                await conn.execute(f"prepare {name} {shape.one}")
                if shape.each is not None:
                    await conn.execute(f"prepare each_{name} {shape.each}")
            except asyncpg.PostgresError as e:
                if is_away(e):
                    raise
                log.warning("a compiled statement cannot be prepared (%s): %s", e, shape.one)
                name = None
            known[shape.one] = name
        return known[shape.one]

    async def _batch(self, conn: asyncpg.Connection[Any], batch: list[Ride]) -> None:
        self.batches += 1
        columns = Columns()
        entries: list[int] = []
        nodes: list[str] = []
        for n, ride in enumerate(batch, 1):
            columns.add(ride.instance, ride.writes, without=ride.nodes)
            entries.extend(n for _ in ride.nodes)
            nodes.extend(ride.nodes)
        states = [(r.instance, r.state) for r in batch if r.state is not None]
        texts, each = await self._texts(conn, batch)
        try:
            rows = await conn.fetch(
                RUN,
                [r.instance for r in batch],
                [r.token for r in batch],
                texts,
                each,
                [r.execution for r in batch],
                [r.ends for r in batch],
                entries,
                nodes,
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
        self.rides += len(batch)
        for ride, row in zip(batch, rows, strict=True):
            if not row["held"]:
                _settle(ride, ClaimLost(ride.instance))
            elif row["error"] is not None:
                _settle(
                    ride,
                    NodeFailed(
                        f"SQL execution failed: error returned from database: {row['error']}",
                        row["code"],
                    ),
                )
            elif not ride.done.done():
                ride.done.set_result(Result(row["result"]))


def _array(values: tuple[Any, ...]) -> str:
    """A literal of names and numbers that need no quotes."""
    return f"'{{{','.join(map(str, values))}}}'"


def _settle(ride: Ride, error: Exception) -> None:
    if not ride.done.done():
        ride.done.set_exception(error)
        ride.done.exception()
