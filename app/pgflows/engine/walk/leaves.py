"""The nodes that do something: statements, calls, waits, and break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from pgflows.compiled import Prepared
from pgflows.engine.call.calls import LONGEST_PAUSE
from pgflows.engine.claims import Claim
from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Refused, Result
from pgflows.engine.node.substitute import in_field, in_sql, literals
from pgflows.engine.sql.one_trip import kinds
from pgflows.engine.sql.statements import Statement
from pgflows.engine.walk import refusals
from pgflows.engine.walk.branch import Branch
from pgflows.engine.walk.rooms import Rooms
from pgflows.engine.walk.showing import PARK_SECONDS
from pgflows.engine.walk.signals import Signals
from pgflows.engine.walk.timers import (
    DEADLINE,
    sleep,
    wait_durably,
    wait_for_schedule,
    wait_until,
)
from pgflows.engine.write.batches import BatchedNode
from pgflows.engine.write.checkpoint import Entry, Spoiled

OUTSIDE = "df.break() was called outside of a loop. df.break() may only be used inside df.loop()."


class Broken(Exception):
    """df.break: ends the innermost loop with this value."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Leaves:
    """Performs the leaves of one run."""

    def __init__(
        self,
        rooms: Rooms,
        claim: Claim,
        variables: Mapping[str, str],
    ) -> None:
        self._rooms = rooms
        self._role = claim.role
        self._database = claim.database
        self._variables = variables
        self._before = claim.before
        self._may_call = claim.calls
        self._batches = claim.database is None and rooms.batches.serve(claim.role)
        self.signals = Signals(rooms.mail)

    async def perform(self, node: Node, branch: Branch) -> Result:
        """One leaf; a leaf that ended before in this execution answers what it answered then."""
        found = self._before.get(node.id)
        if found is not None and found[1] == branch.path:
            return _recorded(node, found[0], found[2])
        branch.enter(node)
        try:
            match node.type:
                case "SQL" if self._database is not None:
                    return await self._elsewhere(node, branch, self._database)
                case "SQL":
                    return await self._sql(node, branch)
                case "HTTP" | "HTTP_MULTIPART":
                    return await self._call(node, branch)
                case "SLEEP":
                    return await sleep(node, branch)
                case "WAIT_SCHEDULE":
                    return await wait_for_schedule(node, branch)
                case "SIGNAL":
                    return await self.signals.wait_for(node, branch)
                case "BREAK":
                    raise _break(node, branch)
                case _:
                    raise NodeFailed(f"a node of type {node.type} cannot be run")
        except NodeFailed as e:
            refusals.note(e, role=self._role, instance=branch.run.instance, node=node)
            raise branch.fail(node, e.message) from e
        except Spoiled as e:
            raise branch.fail(node, f"the result cannot be stored: {e}") from e

    async def _sql(self, node: Node, branch: Branch) -> Result:
        prepared = node.prepared if self._batches else None
        seq = _seq(prepared, branch.captures) if prepared is not None else None
        if prepared is None or seq is None:
            return await self._statement(node, branch)
        return await self._batched(node, branch, prepared, seq)

    async def _batched(self, node: Node, branch: Branch, prepared: Prepared, seq: int) -> Result:
        """A compiled node, in one transaction with those of other runs."""
        writes, state = await branch.take()
        run = branch.run
        batched = BatchedNode(
            run.instance,
            run.token,
            prepared,
            seq,
            branch.path,
            node.completes,
            node.ends,
            writes,
            state,
        )
        result = await self._rooms.batches.submit(batched)
        run.ended = node.ends
        return result

    async def _statement(self, node: Node, branch: Branch) -> Result:
        """A user's statement, in one transaction with its record."""
        text = in_sql(node.query or "", self._variables, branch.captures)
        values = literals(node.query or "", branch.captures)
        key = None if values is None else (self._role, node.query or "", kinds(values))
        writes, state = await branch.take()
        entry = Entry(branch.run.instance, branch.run.token, writes, state=state)
        statement = Statement(self._role, text, key, entry, node.completes, branch.path, node.ends)
        try:
            with branch.waiting(node):
                result = await self._rooms.statements.execute(statement)
        except NodeFailed:
            branch.writes[:0] = writes
            raise
        branch.run.ended = node.ends
        return result

    async def _elsewhere(self, node: Node, branch: Branch, database: str) -> Result:
        """In another database: the effect commits there, the record after it here."""
        await branch.flush()
        text = in_sql(node.query or "", self._variables, branch.captures)
        with branch.waiting(node):
            result = await self._rooms.statements.execute_in(database, self._role, text)
        return branch.complete(node, result)

    async def _call(self, node: Node, branch: Branch) -> Result:
        if node.type not in self._may_call:
            function = f"df.{node.type.lower()}"
            raise Refused(
                f"Blocked: role '{self._role}' does not have EXECUTE privilege on {function}(): "
                "df.grant_usage(role, include_http => true) gives it"
            )
        await branch.flush()
        key = branch.key(node)
        until = branch.recall(DEADLINE, key)

        async def pause(seconds: float) -> None:
            if until is not None:  # the short pauses were made before this run was parked
                seconds = max(seconds, LONGEST_PAUSE)
            if seconds > PARK_SECONDS:
                await wait_durably(node, branch, branch.run.clock.now() + seconds)
            else:
                await asyncio.sleep(seconds)

        with branch.waiting(node):
            if until is not None:
                await wait_until(branch, until)
            result = await self._rooms.calls.call(
                node.spec, lambda text: in_field(text, self._variables, branch.captures), pause
            )
        branch.remember(DEADLINE, key, None)
        if node.unused:
            result = result.forgetful()
        return branch.complete(node, result)


def _recorded(node: Node, status: str, result: Result) -> Result:
    if status != "completed":
        raise NodeFailed(str(result.value))
    if node.type == "BREAK":
        raise Broken(result)
    return result


def _break(node: Node, branch: Branch) -> Broken:
    if not node.in_loop:
        raise NodeFailed(OUTSIDE)
    value = node.spec.get("break_value")
    text = "null" if value is None else _as_json(value)
    return broken(node, Broken(Result(text)), branch)


def broken(node: Node, error: Broken, branch: Branch) -> Broken:
    """The node and its ancestors up to the end of the arm complete with the value."""
    names = tuple(n.id for n in node.rising if n.type != "LOOP")
    branch.record(names, "completed", error.result)
    return error


def _seq(prepared: Prepared, captures: Mapping[str, Result]) -> int | None:
    """The seq that the node before answered; None if the capture is something else."""
    if prepared.capture is None:
        return 0
    captured = captures.get(prepared.capture)
    rows = captured.rows if captured is not None else None
    found = rows[0].get("seq") if rows and isinstance(rows[0], dict) else None
    return found if type(found) is int else None


def _as_json(value: Any) -> str:
    """JSON stays JSON; any other text becomes a JSON string."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return json.dumps(json.loads(value), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=False)
