"""One run of an instance in memory: an asyncio task that walks the graph.

Rules of durability: a call to the outside starts only when all that led to it is durable; a
compiled node takes the checkpoints before it along into its own transaction; the end of the
instance is written together with the last node. Nodes that ended before (in an earlier life)
answer their recorded result.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgflows.engine.node.graph import Graph, Node
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.walk.leaves import Broken, Leaves, Services
from pgflows.engine.walk.resume import Journal, Strand, ids
from pgflows.engine.write.checkpoint import Ending, Entry, Write

UNNAMED = ("SLEEP",)
MOST_ITERATIONS = 100_000
LOST = "Loop branch cancelled after losing RACE"


@dataclass(frozen=True)
class Claim:
    """What df._claim answered for one instance.

    `before` holds the nodes that had ended by then; statements run in `database`, None for ours;
    `calls` are the types of nodes that the role may call over HTTP with.
    """

    instance: str
    token: uuid.UUID
    label: str | None
    role: str
    variables: Mapping[str, str]
    graph: Graph
    before: Mapping[str, tuple[str, str, Result]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    database: str | None = None
    calls: frozenset[str] = frozenset()


class Run:
    def __init__(self, claim: Claim, services: Services) -> None:
        self.claim = claim
        self.instance = claim.instance
        self._root = claim.graph.root
        self.journal = Journal(claim.instance, claim.token, claim.state, services)
        variables = {
            **claim.variables,
            "sys_instance_id": claim.instance,
            "sys_label": claim.label or "",
        }
        self._leaves = Leaves(
            self.journal,
            services,
            claim.role,
            claim.database,
            variables,
            claim.before,
            claim.calls,
        )

    @property
    def leaves(self) -> Leaves:
        return self._leaves

    async def run(self) -> None:
        """Walks to the end. Raises ClaimLost or a connection's error: then it goes on elsewhere."""
        strand = self.journal.open(Strand(f"{self.instance}::1"))
        try:
            await self._walk(self._root, strand)
        except NodeFailed:
            await self.journal.flush(strand, Ending("failed"))
            return
        if not self.journal.ended:
            await self.journal.flush(strand, Ending("completed"))

    async def _walk(self, node: Node, strand: Strand) -> Result:
        match node.type:
            case "THEN":
                await self._walk(_child(node, node.left), strand)
                result = await self._walk(_child(node, node.right), strand)
            case "IF":
                result = await self._branch(node, strand)
            case "JOIN":
                result = await self._join(node, strand)
            case "RACE":
                result = await self._race(node, strand)
            case "LOOP":
                result = await self._loop(node, strand)
            case _:
                result = await self._leaves.run(node, strand)
        if node.name and node.type not in UNNAMED:
            strand.captures[node.name] = result
        return result

    async def _branch(self, node: Node, strand: Strand) -> Result:
        if node.condition is not None:
            truth = (await self._walk(node.condition, strand)).truth()
        else:
            name = node.spec.get("result_name", "")
            found = strand.captures.get(name)
            if found is None:
                raise self.journal.fail(node, f"df.if_rows: result '{name}' not found", strand)
            truth = bool(isinstance(found.value, dict) and found.value.get("row_count"))
        return await self._walk(_child(node, node.left if truth else node.right), strand)

    # -- branches side by side

    def _arms(self, node: Node, strand: Strand) -> list[tuple[Node, Strand]]:
        return [
            (arm, self.journal.open(Strand(f"{strand.path}::{arm.id}::1", dict(strand.captures))))
            for arm in node.branches
        ]

    def _close(self, arm: Strand, strand: Strand) -> None:
        """What the arm did and had not written yet travels with its parent."""
        self.journal.strands.discard(arm)
        for write in arm.writes:
            strand.add(write)
        strand.changes.extend(arm.changes)
        arm.writes, arm.changes = [], []

    async def _join(self, node: Node, strand: Strand) -> Result:
        """All arms at once; it waits for every one; the first failed arm in order is its error."""
        arms = self._arms(node, strand)
        strand.joining = True
        outcomes = await _all([self._walk(n, own) for n, own in arms])
        strand.joining = False
        for _, own in arms:
            await own.settle()
            self._close(own, strand)
        for n, ((arm, own), outcome) in enumerate(zip(arms, outcomes, strict=True), 1):
            if isinstance(outcome, NodeFailed):
                text = f"JOIN branch {n} failed: {outcome.message}"
                _name_branch(arm, own, text, strand)
                raise self.journal.fail(node, text, strand)
        for _, own in arms:
            strand.captures.update(own.captures)
        for outcome in outcomes:
            if isinstance(outcome, Broken):
                raise self._leaves.broken(node, outcome, strand)
        texts = [o.text for o in outcomes if isinstance(o, Result)]
        return self.journal.complete(node, Result(f"[{','.join(texts)}]"), strand)

    async def _race(self, node: Node, strand: Strand) -> Result:
        """The first arm to end decides, well or badly; the others are abandoned as they stand."""
        arms = self._arms(node, strand)
        key = strand.key(node)
        decided = self.journal.recall("race", key)
        contestants = arms if decided is None else [arms[decided]]
        strand.joining = True
        tasks = [asyncio.ensure_future(self._walk(n, own)) for n, own in contestants]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(i for i, t in enumerate(tasks) if t.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        strand.joining = False
        winner = decided if decided is not None else first
        for i, (arm, own) in enumerate(arms):
            await own.settle()
            if i != winner:
                self._abandon(node, arm, own, strand.path)
            self._close(own, strand)
        self.journal.remember(strand, "race", key, winner)
        try:
            result = tasks[first].result()
        except NodeFailed as e:
            text = f"RACE {('left', 'right')[winner]} branch failed: {e.message}"
            _name_branch(*arms[winner], text, strand)
            raise self.journal.fail(node, text, strand) from None
        except Broken as e:
            strand.captures.update(arms[winner][1].captures)
            raise self._leaves.broken(node, e, strand) from None
        strand.captures.update(arms[winner][1].captures)
        return self.journal.complete(node, result, strand)

    def _abandon(self, race: Node, arm: Node, own: Strand, outer: str) -> None:
        """The losing arm keeps showing what it was at; an arm that is a loop is shown failed."""
        entry = Entry(self.instance, self.journal.token)
        own.node = own.last
        self.journal.show(own, entry, top=race)
        own.writes.extend(entry.writes)
        if arm.type == "LOOP":
            scope = f"{outer}::{arm.id}::"
            generation = own.path.removeprefix(scope).partition("::")[0]
            own.add(Write((arm.id,), "failed", Result.of(LOST), scope + generation))

    # -- loops

    async def _loop(self, node: Node, strand: Strand) -> Result:
        """Do-while. A loop that is the whole graph, or a whole arm, counts its iterations in the
        scope that it lies in; any other has a scope of its own. The root starts each iteration
        with no captures, all others keep them. Where it ended is remembered: a later life of the
        run finds the nodes of its last iteration recorded, and no other.
        """
        body, outer, key = _child(node, node.left), strand.path, strand.key(node)
        remembered = self.journal.recall("loop", key) or {}
        n = int(remembered.get("n", 1))
        strand.captures.update({k: Result(v) for k, v in remembered.get("captures", {}).items()})
        root = node is self._root
        own = not (root or _is_arm(node))
        scope = f"{outer}::{node.id}" if own else outer.rpartition("::")[0]
        while True:
            strand.path = f"{scope}::{n}"
            if root:
                strand.captures.clear()
            try:
                result = await self._walk(body, strand)
                again = node.condition is None or (await self._walk(node.condition, strand)).truth()
            except Broken as e:
                result, again = e.result, False
            except NodeFailed as e:
                prefix = "Loop sub-orchestration failed: " if own else ""
                raise self._loop_failed(node, prefix + e.message, strand, outer) from None
            if not again:
                break
            if n >= MOST_ITERATIONS:
                text = f"the loop reached the limit of {MOST_ITERATIONS} iterations"
                raise self._loop_failed(node, text, strand, outer)
            self.journal.leave(strand, strand.path)
            n += 1
            kept = (
                {}
                if root
                else {k: strand.captures[k].text for k in node.sets if k in strand.captures}
            )
            self.journal.remember(strand, "loop", key, {"n": n, "captures": kept})
            await asyncio.sleep(0)
        strand.add(Write((node.id,), "completed", result, strand.path))
        if not root:
            strand.path = outer
            if passed := ids(node)[1:]:
                strand.add(Write(passed, "completed", result, outer))
        return result

    def _loop_failed(self, node: Node, message: str, strand: Strand, outer: str) -> NodeFailed:
        strand.add(Write((node.id,), "failed", Result.of(message), strand.path))
        if node is not self._root and not _is_arm(node):
            strand.path = outer
        rest = tuple(n.id for n in node.rising[1:])
        if rest:
            strand.add(Write(rest, "failed", Result.of(message), strand.path))
        return NodeFailed(message)


Outcome = Result | NodeFailed | Broken


async def _all(walks: list[Coroutine[Any, Any, Result]]) -> list[Outcome]:
    """Results, node failures and breaks in order; any other error stops all and is raised."""
    tasks = [asyncio.ensure_future(w) for w in walks]
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                error = task.exception()
                if error is not None and not isinstance(error, NodeFailed | Broken):
                    raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [_outcome(t) for t in tasks]


def _outcome(task: asyncio.Future[Result]) -> Outcome:
    error = task.exception()
    return error if isinstance(error, NodeFailed | Broken) else task.result()


def _name_branch(arm: Node, own: Strand, text: str, strand: Strand) -> None:
    """An arm that is a loop and failed in its first iteration shows the error of its branch."""
    if arm.type == "LOOP" and own.path == f"{strand.path}::{arm.id}::1":
        strand.add(Write((arm.id,), "failed", Result.of(text), own.path))


def _is_arm(node: Node) -> bool:
    return node.parent is not None and node.parent.type in ("JOIN", "RACE")


def _child(parent: Node, child: Node | None) -> Node:
    if child is None:
        raise NodeFailed(f"{parent.type} node {parent.id} lacks a child")
    return child
