"""The nodes that do something: statements, calls, sleeps, signals and schedules, and break."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cronsim import CronSim

from pgflows.engine.call.calls import LONGEST_PAUSE
from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Refused, Result
from pgflows.engine.node.substitute import in_field, in_sql, literals
from pgflows.engine.sql.one_trip import kinds
from pgflows.engine.sql.statements import Statement
from pgflows.engine.walk import refusals as audit
from pgflows.engine.walk.resume import FOREVER, PARK_AHEAD, Journal, Strand, ids
from pgflows.engine.write.batches import Ride
from pgflows.engine.write.checkpoint import Entry, Spoiled, Write

OUTSIDE = "df.break() was called outside of a loop. df.break() may only be used inside df.loop()."


class Broken(Exception):
    """df.break: ends the innermost loop with this value."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Pause(Protocol):
    """Waits so many seconds on behalf of a node that keeps calling."""

    async def __call__(self, seconds: float) -> None: ...


class Services(Protocol):
    """What a run needs of its engine."""

    async def submit(self, entry: Entry) -> None: ...
    async def ride(self, ride: Ride) -> Result: ...
    async def execute(self, statement: Statement) -> Result: ...
    async def execute_in(self, database: str, role: str, text: str) -> Result: ...
    async def call(
        self, spec: Mapping[str, Any], fill: Callable[[str], str], pause: Pause
    ) -> Result: ...
    async def check_mail(self, instance: str) -> None: ...
    def rides(self, role: str) -> bool: ...
    def now(self) -> float: ...


class Leaves:
    def __init__(
        self,
        journal: Journal,
        services: Services,
        role: str,
        database: str | None,
        variables: Mapping[str, str],
        before: Mapping[str, tuple[str, str, Result]],
        calls: frozenset[str],
    ) -> None:
        self._journal = journal
        self._services = services
        self._role = role
        self._database = database
        self._variables = variables
        self._before = before
        self._calls = calls
        self._mail: dict[str, deque[tuple[int, str]]] = {}
        self._read: set[int] = set()
        self._arrived = asyncio.Event()

    async def run(self, node: Node, strand: Strand) -> Result:
        """One leaf; a leaf that ended before in this execution answers what it answered then."""
        found = self._before.get(node.id)
        if found is not None and found[1] == strand.path:
            return self._recorded(node, found[0], found[2], strand)
        strand.last = node
        try:
            match node.type:
                case "SQL" if self._database is not None:
                    return await self._elsewhere(node, strand, self._database)
                case "SQL" if node.compiled and self._services.rides(self._role):
                    return await self._ride(node, strand)
                case "SQL":
                    return await self._statement(node, strand)
                case "HTTP" | "HTTP_MULTIPART":
                    return await self._call(node, strand)
                case "SLEEP":
                    return await self._sleep(node, strand)
                case "WAIT_SCHEDULE":
                    return await self._schedule(node, strand)
                case "SIGNAL":
                    return await self._signal(node, strand)
                case "BREAK":
                    raise self._break(node, strand)
                case _:
                    raise NodeFailed(f"a node of type {node.type} cannot be run")
        except NodeFailed as e:
            audit.note(e, role=self._role, instance=self._journal.instance, node=node)
            raise self._journal.fail(node, e.message, strand) from e
        except Spoiled as e:
            raise self._journal.fail(node, f"the result cannot be stored: {e}", strand) from e

    def _recorded(self, node: Node, status: str, result: Result, strand: Strand) -> Result:
        if status != "completed":
            raise NodeFailed(str(result.value))
        if node.type == "BREAK":
            raise Broken(result)
        return result

    # -- statements

    async def _ride(self, node: Node, strand: Strand) -> Result:
        shape, text, seq = node.shape, "", 0
        if shape is not None and shape.has_seq:
            found = _seq(strand.captures.get("e"))
            shape, seq = (shape, found) if found is not None else (None, 0)
        if shape is None:
            text = in_sql(node.query or "", self._variables, strand.captures)
        writes, state = await self._journal.take(strand)
        ride = Ride(
            self._journal.instance,
            self._journal.token,
            text,
            shape,
            seq,
            strand.path,
            ids(node),
            node.ends,
            writes,
            state,
        )
        result = await self._services.ride(ride)
        self._journal.ended = node.ends
        return result

    async def _statement(self, node: Node, strand: Strand) -> Result:
        text = in_sql(node.query or "", self._variables, strand.captures)
        writes, state = await self._journal.take(strand)
        entry = Entry(self._journal.instance, self._journal.token, writes, state=state)
        values = literals(node.query or "", strand.captures)
        key = None if values is None else (self._role, node.query or "", kinds(values))
        statement = Statement(self._role, text, key, entry, ids(node), strand.path, node.ends)
        try:
            with strand.waiting(node):
                result = await self._services.execute(statement)
        except NodeFailed:
            strand.writes[:0] = writes
            raise
        self._journal.ended = node.ends
        return result

    async def _elsewhere(self, node: Node, strand: Strand, database: str) -> Result:
        """In another database: the effect commits there, the record after it here."""
        await self._journal.flush(strand)
        text = in_sql(node.query or "", self._variables, strand.captures)
        with strand.waiting(node):
            result = await self._services.execute_in(database, self._role, text)
        return self._journal.complete(node, result, strand)

    # -- calls

    async def _call(self, node: Node, strand: Strand) -> Result:
        if node.type not in self._calls:
            function = f"df.{node.type.lower()}"
            raise Refused(
                f"Blocked: role '{self._role}' does not have EXECUTE privilege on {function}(): "
                "df.grant_usage(role, include_http => true) gives it"
            )
        await self._journal.flush(strand)
        key = strand.key(node)

        until = self._journal.recall("until", key)

        async def pause(seconds: float) -> None:
            if until is not None:  # the short pauses were made before this run was parked
                seconds = max(seconds, LONGEST_PAUSE)
            if seconds > PARK_AHEAD:
                await self._until(node, strand, seconds)
            else:
                await asyncio.sleep(seconds)

        with strand.waiting(node):
            if until is not None:
                await self._wait(strand, until)
            result = await self._services.call(
                node.spec, lambda text: in_field(text, self._variables, strand.captures), pause
            )
        self._journal.remember(strand, "until", key, None)
        if node.unused:
            result = result.forgetful()
        return self._journal.complete(node, result, strand)

    # -- time

    async def _until(self, node: Node, strand: Strand, seconds: float) -> None:
        """Waits, with the deadline durable first, so that no restart starts the wait anew."""
        key = strand.key(node)
        until = self._services.now() + seconds
        self._journal.remember(strand, "until", key, until)
        await self._journal.flush(strand)
        await self._wait(strand, until)

    async def _wait(self, strand: Strand, until: float) -> None:
        with strand.idle(until):
            await asyncio.sleep(max(0.0, until - self._services.now()))

    async def _timer(self, node: Node, strand: Strand, seconds: Callable[[], float]) -> None:
        """Waits until the node's deadline, which its first life sets."""
        with strand.waiting(node):
            until = self._journal.recall("until", strand.key(node))
            if until is not None:
                await self._wait(strand, until)
            elif (wait := seconds()) > 0:
                await self._until(node, strand, wait)
        self._journal.remember(strand, "until", strand.key(node), None)

    async def _sleep(self, node: Node, strand: Strand) -> Result:
        seconds = int(node.query or 0)
        await self._timer(node, strand, lambda: seconds)
        return self._journal.complete(node, Result(f'{{"slept":true,"seconds":{seconds}}}'), strand)

    async def _schedule(self, node: Node, strand: Strand) -> Result:
        """The next tick of the cron expression, in UTC, counted from when the node begins."""
        expression = node.spec["cron_expr"]

        def seconds() -> float:
            now = self._services.now()
            tick = next(CronSim(expression, dt.datetime.fromtimestamp(now, dt.UTC)))
            return tick.timestamp() - now

        await self._timer(node, strand, seconds)
        return self._journal.complete(node, Result('{"scheduled":true}'), strand)

    # -- signals

    def deliver(self, mail: list[tuple[int, str, str]]) -> None:
        """Signals as (id, name, data as JSON text), oldest first; known ones are passed over."""
        for number, name, data in mail:
            if number not in self._read:
                self._read.add(number)
                self._mail.setdefault(name, deque()).append((number, data))
        self._arrived.set()

    async def _signal(self, node: Node, strand: Strand) -> Result:
        name, key = node.spec["signal_name"], strand.key(node)
        timeout = node.spec.get("timeout_seconds")
        until = self._journal.recall("until", key)
        if until is None:
            until = FOREVER if timeout is None else self._services.now() + timeout
            if timeout is not None:
                self._journal.remember(strand, "until", key, until)
        await self._journal.flush(strand)
        await self._services.check_mail(self._journal.instance)
        with strand.waiting(node), strand.idle(until, name):
            letter = await self._receive(name, until)
        self._journal.remember(strand, "until", key, None)
        number, data = letter or (None, "null")
        text = (
            f'{{"signal_name":{json.dumps(name)},"timed_out":{json.dumps(letter is None)},'
            f'"data":{data}}}'
        )
        consumed = () if number is None else (number,)
        strand.add(Write(ids(node), "completed", Result(text), strand.path, consumed))
        return Result(text)

    async def _receive(self, name: str, until: float) -> tuple[int, str] | None:
        while True:
            waiting = self._mail.get(name)
            if waiting:
                return waiting.popleft()
            left = until - self._services.now()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left, 3600.0)):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    # -- break

    def _break(self, node: Node, strand: Strand) -> Broken:
        if not node.in_loop:
            raise NodeFailed(OUTSIDE)
        value = node.spec.get("break_value")
        text = "null" if value is None else _as_json(value)
        return self.broken(node, Broken(Result(text)), strand)

    def broken(self, node: Node, error: Broken, strand: Strand) -> Broken:
        """The node and its ancestors up to the end of the branch complete with the value."""
        names = tuple(n.id for n in node.rising if n.type != "LOOP")
        strand.add(Write(names, "completed", error.result, strand.path))
        return error


def _seq(captured: Result | None) -> int | None:
    """The `seq` in the capture of the compiled node before; None if that is something else."""
    rows = captured.rows if captured is not None else None
    found = rows[0].get("seq") if rows and isinstance(rows[0], dict) else None
    return found if type(found) is int else None


def _as_json(value: Any) -> str:
    """JSON stays JSON; any other text becomes a JSON string."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return json.dumps(json.loads(value), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(value, ensure_ascii=False)
