"""Writes of many runs in one statement: what is pending when a flush ends goes into the next.

A run collects `Write`s. They become durable either here or together with a batch of compiled nodes
(`batches.py`). Both check the run's claim under its row lock, so a run that lost its claim writes
nothing.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from pgflows.database.faults import is_unstorable
from pgflows.engine.node.results import Result

MOST_ENTRIES = 200  # entries in one statement
CHECKPOINT = (
    "select df._checkpoint($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19)"
)


class ClaimLost(Exception):
    """Another engine owns the run by now, or it ended: stop working on it."""


class Spoiled(Exception):
    """PostgreSQL refused the values of this run's writes."""


@dataclass(frozen=True, slots=True)
class Write:
    """The state of some nodes that changed together, and the signals that were used up by it."""

    nodes: tuple[str, ...]
    status: str
    result: Result | None
    execution: str
    consumed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an instance ends, or `running` to show that it began. `output` is given if it is not the
    root's result.
    """

    status: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Resume state, numbered within its run.

    A run with `wake_at` (seconds since 1970, infinity for never) is parked: it leaves its engine
    until then, or until one of `signals` is raised.
    """

    number: int
    text: str
    wake_at: float | None = None
    signals: tuple[str, ...] = ()


@dataclass(slots=True)
class Entry:
    """What one run wants written in one go."""

    instance: str
    token: uuid.UUID
    writes: list[Write] = field(default_factory=list)
    ending: Ending | None = None
    state: State | None = None
    done: asyncio.Future[None] | None = None


class Columns:
    """Writes as array arguments. Of several writes of one node the last counts, but a node that
    ended is not shown running again in the same execution.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Write] = {}
        self.consumed: list[int] = []

    def add(self, instance: str, writes: Iterable[Write], without: Collection[str] = ()) -> None:
        for write in writes:
            self.consumed.extend(write.consumed)
            for node in write.nodes:
                if node in without:
                    continue
                before = self._rows.pop((instance, node), write)
                ended = before.status != "running" and before.execution == write.execution
                late = write.status == "running" and ended
                self._rows[instance, node] = before if late else write

    def arguments(self) -> tuple[list[Any], ...]:
        """Instances, nodes, statuses, results, execution ids."""
        return (
            [i for i, _ in self._rows],
            [n for _, n in self._rows],
            [w.status for w in self._rows.values()],
            [w.result.text if w.result else None for w in self._rows.values()],
            [w.execution for w in self._rows.values()],
        )

    def kept(self) -> tuple[list[str], list[str], list[str]]:
        """Instances, nodes and texts of the results whose order of keys jsonb would lose."""
        found = [
            (i, n, w.result.text)
            for (i, n), w in self._rows.items()
            if w.result is not None and w.result.ordered
        ]
        return [i for i, _, _ in found], [n for _, n, _ in found], [t for _, _, t in found]


async def write(conn: asyncpg.Connection[Any], entries: list[Entry]) -> set[str]:
    """One df._checkpoint call; returns the instances whose claim still holds."""
    columns = Columns()
    for e in entries:
        columns.add(e.instance, e.writes)
    ends = [(e.instance, e.ending) for e in entries if e.ending]
    states = [(e.instance, e.state) for e in entries if e.state is not None]
    held = await conn.fetchval(
        CHECKPOINT,
        [e.instance for e in entries],
        [e.token for e in entries],
        *columns.arguments(),
        *columns.kept(),
        [i for i, _ in ends],
        [end.status for _, end in ends],
        [end.output for _, end in ends],
        [i for i, _ in states],
        [s.number for _, s in states],
        [s.text for _, s in states],
        [s.wake_at for _, s in states],
        [json.dumps(s.signals) if s.signals else None for _, s in states],
        columns.consumed,
    )
    return set(held)


class Checkpointer:
    """One flusher on one connection; `submit` returns when the entry is durable."""

    def __init__(self, conn: asyncpg.Connection[Any]) -> None:
        self._conn = conn
        self._pending: list[Entry] = []
        self._wake = asyncio.Event()
        self.flushes = 0

    async def submit(self, entry: Entry) -> None:
        """Raises ClaimLost, Spoiled, or the connection's error."""
        await self.queue(entry)

    def queue(self, entry: Entry) -> asyncio.Future[None]:
        """`submit` for callers that await the future later; the entry has its place now."""
        entry.done = asyncio.get_running_loop().create_future()
        self.add(entry)
        return entry.done

    def add(self, entry: Entry) -> None:
        """Queues an entry; its future, if it has one, is awaited elsewhere."""
        self._pending.append(entry)
        self._wake.set()

    async def keep_flushing(self) -> None:
        """Runs until the connection fails; then every waiting run gets the error."""
        while True:
            await self._wake.wait()
            batch, self._pending = self._pending[:MOST_ENTRIES], self._pending[MOST_ENTRIES:]
            if not self._pending:
                self._wake.clear()
            try:
                await self._flush(batch)
            except BaseException as e:
                self._fail(batch + self._pending, e)
                raise

    async def _flush(self, batch: list[Entry]) -> None:
        """A value that PostgreSQL refuses is found by halving; it fails its own run only."""
        self.flushes += 1
        try:
            held = await write(self._conn, batch)
        except (asyncpg.PostgresError, ValueError) as e:
            if not is_unstorable(e):
                raise
            if len(batch) == 1:
                self._fail(batch, Spoiled(str(e)))
                return
            middle = len(batch) // 2
            await self._flush(batch[:middle])
            await self._flush(batch[middle:])
            return
        for entry in batch:
            if entry.done is None or entry.done.done():
                continue
            if entry.instance in held:
                entry.done.set_result(None)
            else:
                self._fail([entry], ClaimLost(entry.instance))

    @staticmethod
    def _fail(entries: list[Entry], error: BaseException) -> None:
        told = error if isinstance(error, Exception) else ClaimLost("the engine stops")
        for e in entries:
            if e.done is not None and not e.done.done():
                e.done.set_exception(told)
                e.done.exception()
