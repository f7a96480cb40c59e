"""One line of control of a run, and what it has to tell the database.

A branch goes on only if what led to its next effect is durable, or travels in the same transaction.
Changes of the resume state belong to the branch that made them and become durable with its writes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pgflows.engine.clock import Clock
from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.walk.resume import Change, Resume
from pgflows.engine.write.checkpoint import Checkpointer, Ending, Entry, State, Write

RACE_LOST = "Loop branch cancelled after losing RACE"


@dataclass(eq=False)
class RunState:
    """What the branches of one run share."""

    instance: str
    token: uuid.UUID
    resume: Resume
    checkpointer: Checkpointer
    clock: Clock
    branches: set[Branch] = field(default_factory=set)
    shown: set[tuple[str, str]] = field(default_factory=set)  # (node, execution) seen as running
    ended: bool = False  # the end was recorded together with the last node

    def trunk(self) -> Branch:
        """The branch that a run begins with."""
        branch = Branch(self, f"{self.instance}::1")
        self.branches.add(branch)
        return branch


@dataclass(eq=False)
class Branch:
    """Its execution id, its captures, and the writes that are not durable yet.

    `top` is the arm of a JOIN or RACE that it walks, None for the trunk.
    """

    run: RunState
    path: str
    top: Node | None = None
    captures: dict[str, Result] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    since: float = 0.0  # when the oldest of the writes was made
    flushing: asyncio.Future[None] | None = None  # of writes that an observer's flush took along
    entered: Node | None = None  # the last leaf that was begun
    node: Node | None = None  # the leaf that takes long, if one does
    node_since: float = 0.0
    arms: int = 0  # branches that were forked off and are still open
    idle_until: float | None = None  # database time in seconds: only that moves the branch on ...
    idle_signal: str | None = None  # ... or this signal

    # -- arms side by side

    def fork(self, nodes: Sequence[Node]) -> list[Branch]:
        """An arm for each node, with the captures so far."""
        arms = [
            Branch(self.run, f"{self.path}::{node.id}::1", node, dict(self.captures))
            for node in nodes
        ]
        self.run.branches.update(arms)
        self.arms += len(arms)
        return arms

    async def absorb(self, arm: Branch) -> None:
        """Takes an arm back that counts: what it captured comes out."""
        await self._close(arm)
        self.captures.update(arm.captures)

    async def abandon(self, arm: Branch, race: Node) -> None:
        """Takes an arm back that lost: what it captured does not come out.

        It keeps showing what it was at; an arm that is a loop is shown failed.
        """
        await arm.settle()
        arm.node = arm.entered
        arm.writes.extend(arm.unseen(below=race))
        if arm.top is not None and arm.top.type == "LOOP":
            scope = f"{self.path}::{arm.top.id}::"
            arm.path = scope + arm.path.removeprefix(scope).partition("::")[0]  # its iteration
            arm.record((arm.top.id,), "failed", Result.of(RACE_LOST))
        await self._close(arm)

    def blame(self, arm: Branch, message: str) -> None:
        """The arm failed: if it is a loop in its first iteration, it shows the message too."""
        if arm.top is not None and arm.top.type == "LOOP":
            first = f"{self.path}::{arm.top.id}::1"
            if arm.path == first:
                self._add(Write((arm.top.id,), "failed", Result.of(message), first))

    async def _close(self, arm: Branch) -> None:
        """What the arm did and has not written yet travels with this branch."""
        await arm.settle()
        self.run.branches.discard(arm)
        self.arms -= 1
        for write in arm.writes:
            self._add(write)
        self.changes.extend(arm.changes)
        arm.writes, arm.changes = [], []

    # -- where it stands

    def enter(self, node: Node) -> None:
        """Says that a leaf begins."""
        self.entered = node

    def iteration(self, scope: str, number: int) -> None:
        """Moves to an iteration, which is an execution in the scope of its loop."""
        self.path = f"{scope}::{number}"

    def leave(self) -> None:
        """Forgets what was remembered in this execution, which is over, and in those within it."""
        inside = (f"{self.path}/", f"{self.path}::")
        for section, key in (*self.run.resume.keys(), *(c[:2] for c in self.changes)):
            if key.startswith(inside):
                self.remember(section, key, None)

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
        """Says that nothing but the clock, or a signal, will move this branch on."""
        self.idle_until, self.idle_signal = until, signal
        try:
            yield
        finally:
            self.idle_until = self.idle_signal = None

    def unseen(self, below: Node | None = None) -> list[Write]:
        """Writes that show the node and its ancestors as running, once each.

        Each shows the execution id of the branch that it belongs to.
        """
        writes, path, node = [], self.path, self.node
        while node is not None and node is not below:
            if (node.id, path) not in self.run.shown and not node.silent:
                self.run.shown.add((node.id, path))
                writes.append(Write((node.id,), "running", None, path))
            head, _, last = path.rpartition("::")
            if head.endswith(f"::{node.id}") and last.isdigit():
                path = head.removesuffix(f"::{node.id}")
            node = node.parent
        return writes

    # -- what it did

    def complete(self, node: Node, result: Result) -> Result:
        """The node and those that complete with it."""
        self.record(node.completes, "completed", result)
        return result

    def fail(self, node: Node, message: str) -> NodeFailed:
        """Marks the node and what fails with it; returns the error to raise."""
        self.record(tuple(n.id for n in node.rising), "failed", Result.of(message))
        return NodeFailed(message)

    def record(
        self, nodes: tuple[str, ...], status: str, result: Result, consumed: tuple[int, ...] = ()
    ) -> None:
        """Nodes that ended together, and the signals that were used up by it."""
        self._add(Write(nodes, status, result, self.path, consumed))

    def _add(self, write: Write) -> None:
        if not self.writes:
            self.since = time.monotonic()
        self.writes.append(write)

    def key(self, node: Node) -> str:
        """Names a node in this execution in the resume state."""
        return f"{self.path}/{node.id}"

    def remember(self, section: str, key: str, value: Any) -> None:
        """Keeps a value (None: forgets it); durable with the branch's next writes."""
        self.changes = [c for c in self.changes if c[:2] != (section, key)]
        if value is not None or self.run.resume.recall(section, key) is not None:
            self.changes.append((section, key, value))

    def recall(self, section: str, key: str) -> Any:
        return self.run.resume.recall(section, key)

    # -- making it durable

    async def settle(self) -> None:
        """Waits for an observer's flush of this branch that is under way."""
        while self.flushing is not None and not self.flushing.done():
            await asyncio.wait([self.flushing])

    async def take(self) -> tuple[list[Write], State | None]:
        """Hands over what there is to write; the caller makes it durable."""
        await self.settle()
        writes, self.writes = self.writes, []
        return writes, self.run.resume.apply(self.changes)

    async def flush(self, ending: Ending | None = None) -> None:
        """Returns when all that the branch did is durable."""
        writes, state = await self.take()
        if writes or ending or state:
            await self.run.checkpointer.submit(
                Entry(self.run.instance, self.run.token, writes, ending=ending, state=state)
            )
