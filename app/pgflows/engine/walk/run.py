"""One run of an instance in memory: an asyncio task that walks the graph.

Rules of durability: a call to the outside starts only when all that led to it is durable; a
compiled node takes the checkpoints before it along into its own transaction; the end of the
instance is written together with the last node. Nodes that ended before (in an earlier life)
answer their recorded result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

from pgflows.engine.claims import Claim
from pgflows.engine.mail import Letter
from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Result
from pgflows.engine.walk.branch import Branch, RunState
from pgflows.engine.walk.leaves import Broken, Leaves, broken
from pgflows.engine.walk.resume import Resume
from pgflows.engine.walk.rooms import Rooms
from pgflows.engine.walk.showing import overdue, parked
from pgflows.engine.write.checkpoint import Ending, Entry

UNNAMED = ("SLEEP",)
MOST_ITERATIONS = 100_000


class Run:
    """Walks the graph of one claimed instance."""

    def __init__(self, claim: Claim, rooms: Rooms) -> None:
        self.instance = claim.instance
        self.token = claim.token
        self._root = claim.root
        self._state = RunState(
            claim.instance, claim.token, Resume(claim.state), rooms.checkpointer, rooms.clock
        )
        variables = {
            **claim.variables,
            "sys_instance_id": claim.instance,
            "sys_label": claim.label or "",
        }
        self._leaves = Leaves(rooms, claim, variables)

    async def walk(self) -> None:
        """Walks to the end. Raises ClaimLost or a connection's error: then it goes on elsewhere."""
        trunk = self._state.trunk()
        try:
            await self._visit(self._root, trunk)
        except NodeFailed:
            await trunk.flush(Ending("failed"))
            return
        if not self._state.ended:
            await trunk.flush(Ending("completed"))

    def deliver(self, letters: list[Letter]) -> None:
        """Hands signals to the nodes that wait for them."""
        self._leaves.signals.deliver(letters)

    def overdue(self, age: float) -> list[Entry]:
        """What observers should get to see by now, to be submitted."""
        return overdue(self._state, age)

    def parked(self) -> Entry | None:
        """The entry that lets the run leave memory; None if it has something to do here."""
        waits = (b.idle_signal for b in self._state.branches)
        if any(name is not None and self._leaves.signals.raised(name) for name in waits):
            return None
        return parked(self._state)

    async def _visit(self, node: Node, branch: Branch) -> Result:
        match node.type:
            case "THEN":
                await self._visit(_child(node, node.left), branch)
                result = await self._visit(_child(node, node.right), branch)
            case "IF":
                result = await self._if(node, branch)
            case "JOIN":
                result = await self._join(node, branch)
            case "RACE":
                result = await self._race(node, branch)
            case "LOOP":
                result = await self._loop(node, branch)
            case _:
                result = await self._leaves.perform(node, branch)
        if node.name and node.type not in UNNAMED:
            branch.captures[node.name] = result
        return result

    async def _if(self, node: Node, branch: Branch) -> Result:
        condition = await self._visit(node.condition, branch) if node.condition else None
        try:
            truth = _has_rows(node, branch) if condition is None else condition.truth()
        except NodeFailed as e:
            raise branch.fail(node, e.message) from e
        return await self._visit(_child(node, node.left if truth else node.right), branch)

    async def _join(self, node: Node, branch: Branch) -> Result:
        """All arms at once; it waits for every one; the first failed arm in order is its error."""
        arms = branch.fork(node.arms)
        walks = [self._visit(n, arm) for n, arm in zip(node.arms, arms, strict=True)]
        outcomes = await _all(walks)
        for arm in arms:
            await branch.absorb(arm)
        for n, (arm, outcome) in enumerate(zip(arms, outcomes, strict=True), 1):
            if isinstance(outcome, NodeFailed):
                text = f"JOIN branch {n} failed: {outcome.message}"
                branch.blame(arm, text)
                raise branch.fail(node, text)
        for outcome in outcomes:
            if isinstance(outcome, Broken):
                raise broken(node, outcome, branch)
        texts = [o.text for o in outcomes if isinstance(o, Result)]
        return branch.complete(node, Result(f"[{','.join(texts)}]"))

    async def _race(self, node: Node, branch: Branch) -> Result:
        """The first arm to end decides, well or badly; the others are abandoned as they stand."""
        arms = branch.fork(node.arms)
        key = branch.key(node)
        decided = branch.recall("race", key)
        contestants = range(len(arms)) if decided is None else [decided]
        tasks = {asyncio.ensure_future(self._visit(node.arms[i], arms[i])): i for i in contestants}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        winner = tasks[first]
        for i, arm in enumerate(arms):
            if i == winner:
                await branch.absorb(arm)
            else:
                await branch.abandon(arm, node)
        branch.remember("race", key, winner)
        try:
            return branch.complete(node, first.result())
        except NodeFailed as e:
            text = f"RACE {('left', 'right')[winner]} branch failed: {e.message}"
            branch.blame(arms[winner], text)
            raise branch.fail(node, text) from None
        except Broken as e:
            raise broken(node, e, branch) from None

    async def _loop(self, node: Node, branch: Branch) -> Result:
        """Do-while. A loop that is the whole graph, or a whole arm, counts its iterations in the
        scope that it lies in; any other has a scope of its own. The root starts each iteration
        with no captures, all others keep them. Where it ended is remembered: a later life of the
        run finds the nodes of its last iteration recorded, and no others.
        """
        body, outer, key = _child(node, node.left), branch.path, branch.key(node)
        remembered = branch.recall("loop", key) or {}
        n = int(remembered.get("n", 1))
        branch.captures.update({k: Result(v) for k, v in remembered.get("captures", {}).items()})
        root = node is self._root
        own_scope = not (root or _is_arm(node))
        scope = f"{outer}::{node.id}" if own_scope else outer.rpartition("::")[0]
        while True:
            branch.iteration(scope, n)
            if root:
                branch.captures.clear()
            try:
                result = await self._visit(body, branch)
                again = (
                    node.condition is None or (await self._visit(node.condition, branch)).truth()
                )
            except Broken as e:
                result, again = e.result, False
            except NodeFailed as e:
                prefix = "Loop sub-orchestration failed: " if own_scope else ""
                raise _loop_failed(node, prefix + e.message, branch, outer) from None
            if not again:
                break
            if n >= MOST_ITERATIONS:
                text = f"the loop reached the limit of {MOST_ITERATIONS} iterations"
                raise _loop_failed(node, text, branch, outer)
            branch.leave()
            n += 1
            held = branch.captures
            kept = {} if root else {k: held[k].text for k in node.sets if k in held}
            branch.remember("loop", key, {"n": n, "captures": kept})
            await asyncio.sleep(0)
        branch.record((node.id,), "completed", result)
        if not root:
            branch.path = outer
            if passed := node.completes[1:]:
                branch.record(passed, "completed", result)
        return result


def _has_rows(node: Node, branch: Branch) -> bool:
    """The condition of df.if_rows: whether a captured result has rows."""
    name = node.spec.get("result_name", "")
    found = branch.captures.get(name)
    if found is None:
        raise NodeFailed(f"df.if_rows: result '{name}' not found")
    rows = found.value.get("row_count") if isinstance(found.value, dict) else None
    if rows is None:
        raise NodeFailed(f"df.if_rows: result '{name}' is not a SQL result (missing row_count)")
    return bool(rows)


def _loop_failed(node: Node, message: str, branch: Branch, outer: str) -> NodeFailed:
    """The loop fails in its iteration, what fails with it at the path around it."""
    branch.record((node.id,), "failed", Result.of(message))
    if node.parent is not None and not _is_arm(node):
        branch.path = outer
    rest = tuple(n.id for n in node.rising[1:])
    if rest:
        branch.record(rest, "failed", Result.of(message))
    return NodeFailed(message)


Outcome: TypeAlias = Result | NodeFailed | Broken


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


def _is_arm(node: Node) -> bool:
    return node.parent is not None and node.parent.type in ("JOIN", "RACE")


def _child(parent: Node, child: Node | None) -> Node:
    if child is None:
        raise NodeFailed(f"{parent.type} node {parent.id} lacks a child")
    return child
