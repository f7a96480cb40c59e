"""What a run has to tell the database: node results, resume state, its end, and when it may leave
memory.

A strand is one line of control; it goes on only when what led to its next effect is durable, or
travels in the same transaction. State changes belong to the strand that made them and become
durable with its writes; each carries a number, so that entries of several strands may land in any
order.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.write.checkpoint import Ending, Entry, State, Write

Captures = dict[str, Result]
Change = tuple[str, str, Any]
PARK_AHEAD = 3.0  # a run leaves memory for waits that are longer than this


class Submits(Protocol):
    async def submit(self, entry: Entry) -> None: ...
    def now(self) -> float: ...


@dataclass(eq=False)
class Strand:
    """One line of control: its execution id, captures, and the writes that are not durable yet."""

    path: str
    captures: Captures = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    since: float = 0.0
    late: asyncio.Future[None] | None = None
    node: Node | None = None
    last: Node | None = None
    node_since: float = 0.0
    joining: bool = False
    idle_until: float | None = None
    idle_signal: str | None = None

    def add(self, write: Write) -> None:
        if not self.writes:
            self.since = time.monotonic()
        self.writes.append(write)

    def key(self, node: Node) -> str:
        """Names a node in this execution in the resume state."""
        return f"{self.path}/{node.id}"

    async def settle(self) -> None:
        """Waits for a late flush of this strand that is under way."""
        while self.late is not None and not self.late.done():
            await asyncio.wait([self.late])

    @contextmanager
    def waiting(self, node: Node) -> Iterator[None]:
        """Names the node as running for as long as the block takes."""
        self.node, self.node_since = node, time.monotonic()
        try:
            yield
        finally:
            self.node = None

    @contextmanager
    def idle(self, until: float, signal: str | None = None) -> Iterator[None]:
        """Says that nothing but the clock, or a signal, will move this strand on."""
        self.idle_until, self.idle_signal = until, signal
        try:
            yield
        finally:
            self.idle_until = self.idle_signal = None


class Journal:
    """The writing side of one run."""

    def __init__(
        self, instance: str, token: uuid.UUID, state: Mapping[str, Any], services: Submits
    ) -> None:
        self.instance = instance
        self.token = token
        self._services = services
        self._state: dict[str, dict[str, Any]] = {k: dict(v) for k, v in state.items() if k != "no"}
        self._number: int = state.get("no", 0)
        self._shown: set[tuple[str, str]] = set()
        self.strands: set[Strand] = set()
        self.ended = False

    def open(self, strand: Strand) -> Strand:
        self.strands.add(strand)
        return strand

    # -- resume state

    def recall(self, section: str, key: str) -> Any:
        """What an earlier life of this run, or this one, remembered."""
        return self._state.get(section, {}).get(key)

    def remember(self, strand: Strand, section: str, key: str, value: Any) -> None:
        """Keeps a value (None: forgets it); durable with the strand's next writes."""
        strand.changes = [c for c in strand.changes if c[:2] != (section, key)]
        if value is not None or key in self._state.get(section, {}):
            strand.changes.append((section, key, value))

    def leave(self, strand: Strand, path: str) -> None:
        """Forgets what was remembered in an execution that is over, and in those within it."""
        inside = (f"{path}/", f"{path}::")
        keys = [(s, k) for s, held in self._state.items() for k in held]
        keys += [c[:2] for c in strand.changes]
        for section, key in keys:
            if key.startswith(inside):
                self.remember(strand, section, key, None)

    def _fold(self, strand: Strand) -> State | None:
        if not strand.changes:
            return None
        for section, key, value in strand.changes:
            held = self._state.setdefault(section, {})
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        strand.changes.clear()
        return self._snapshot()

    def _snapshot(self) -> State:
        self._number += 1
        kept = {k: v for k, v in self._state.items() if v} | {"no": self._number}
        return State(self._number, json.dumps(kept))

    # -- writes

    async def take(self, strand: Strand) -> tuple[list[Write], State | None]:
        """Hands over what the strand has to write; the caller makes it durable."""
        await strand.settle()
        writes, strand.writes = strand.writes, []
        return writes, self._fold(strand)

    def complete(self, node: Node, result: Result, strand: Strand) -> Result:
        strand.add(Write(ids(node), "completed", result, strand.path))
        return result

    def fail(self, node: Node, message: str, strand: Strand) -> NodeFailed:
        """Marks the node and what fails with it; returns the error to raise."""
        strand.add(
            Write(tuple(n.id for n in node.rising), "failed", Result.of(message), strand.path)
        )
        return NodeFailed(message)

    async def flush(self, strand: Strand, ending: Ending | None = None) -> None:
        """Returns when all that the strand did is durable."""
        writes, state = await self.take(strand)
        if writes or ending or state:
            await self._services.submit(
                Entry(self.instance, self.token, writes, ending=ending, state=state)
            )

    # -- what an observer sees while something takes long

    def overdue(self, age: float) -> list[Entry]:
        """What is older than `age` seconds: nodes that run unseen, results that nothing took along.

        The caller submits the entries; a strand goes on only when its own has landed.
        """
        now = time.monotonic()
        entries = []
        for strand in self.strands:
            entry = Entry(self.instance, self.token)
            if strand.node is not None and now - strand.node_since > age:
                self.show(strand, entry)
            if strand.writes and now - strand.since > age:
                entry.writes, strand.writes = strand.writes + entry.writes, []
                entry.state = self._fold(strand)
            if entry.writes:
                entry.done = strand.late = asyncio.get_running_loop().create_future()
                entries.append(entry)
        return entries

    def show(self, strand: Strand, entry: Entry, top: Node | None = None) -> None:
        """Marks the strand's node and its ancestors (below `top`) as running.

        Each shows the execution id of the strand that it belongs to.
        """
        path, node = strand.path, strand.node
        while node is not None and node is not top:
            if (node.id, path) not in self._shown and not node.silent:
                self._shown.add((node.id, path))
                entry.writes.append(Write((node.id,), "running", None, path))
                entry.ending = Ending("running")
            head, _, last = path.rpartition("::")
            if head.endswith(f"::{node.id}") and last.isdigit():
                path = head.removesuffix(f"::{node.id}")
            node = node.parent

    def parked(self) -> Entry | None:
        """The entry that lets the run leave memory, if nothing but time or signals can move it."""
        active = [s for s in self.strands if not s.joining]
        ends = [s.idle_until for s in active]
        if not active or any(e is None or e - self._services.now() < PARK_AHEAD for e in ends):
            return None
        if any(s.late is not None and not s.late.done() for s in active):
            return None
        entry = Entry(self.instance, self.token)
        for strand in active:
            self.show(strand, entry)
            entry.writes[:0], strand.writes = strand.writes, []
            self._fold(strand)
        state = self._snapshot()
        entry.state = State(
            state.number,
            state.text,
            wake_at=min(e for e in ends if e is not None),
            signals=tuple(s.idle_signal for s in active if s.idle_signal),
        )
        return entry


def ids(node: Node) -> tuple[str, ...]:
    """The nodes that complete with this one and have a row to say so."""
    return tuple(n.id for n in node.chain if not n.silent)


FOREVER = math.inf
