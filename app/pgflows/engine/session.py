"""One session of an engine with the database: it claims instances and runs them to their end.

A control connection (heartbeat, claims, LISTEN), a checkpointing connection, and lane connections
as pgflows_run. When any of them breaks, the session ends and drops every run in memory: nothing
that matters is only in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from pgflows.config import Settings
from pgflows.crash import crash_point
from pgflows.database.connections import BATCHES, ENGINE, Connection
from pgflows.database.faults import ANY, is_away
from pgflows.database.roles import RUN_ROLE, Logins
from pgflows.engine.call.calls import Outbound
from pgflows.engine.call.targets import Targets
from pgflows.engine.claims import Claims
from pgflows.engine.node.results import Result
from pgflows.engine.sql.statements import SessionEnded, Statement, Statements
from pgflows.engine.suspects import Suspects
from pgflows.engine.walk.leaves import Pause
from pgflows.engine.walk.run import Claim, Run
from pgflows.engine.write.batches import Lane, Ride
from pgflows.engine.write.checkpoint import Checkpointer, ClaimLost, Entry, Spoiled

log = logging.getLogger("pgflows.engine")

BEAT, SHOW_AFTER, LANES = 1.0, 0.25, 2
CAREFUL = 3.0  # for so long claims of a new engine are durable: it may be new after a crash
BUSY, LOOK_EVERY, LOOK_FOR = 32, 0.005, 0.065
ENOUGH, ROOM = 50, 16


class Session:
    """One life of an engine with the database; implements what a run needs (`run.Services`)."""

    def __init__(
        self,
        settings: Settings,
        logins: Logins,
        before: uuid.UUID | None,
        suspects: Suspects,
    ) -> None:
        self.id = uuid.uuid4()
        self._before = before
        self._suspects = suspects
        self._settings = settings
        self._logins = logins
        self._targets = Targets(settings.http_targets)
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._lane = Lane()
        self._statements = Statements(logins)
        self._letters = asyncio.Event()
        self._addressed: dict[str, None] = {}
        self._cancelled: set[str] = set()
        self._parked = 0
        self._clock = (0.0, 0.0)
        self._due: float | None = None
        self._look_until: float | None = None
        self._bases_read = -BEAT
        self._refreshing: asyncio.Task[None] | None = None
        self._opened = 0.0
        self._careful = True
        self._finished = 0

    @property
    def lasted(self) -> float:
        return time.monotonic() - self._opened if self._opened else 0.0

    # -- one life

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            control = await self._connection(stack)
            await self._logins.learn(control)
            self._claims = Claims(control, self.id)
            self._checkpointer = Checkpointer(await self._connection(stack))
            lanes = [await self._lane_connection(stack) for _ in range(LANES)]
            self._outbound = Outbound(self._targets, self._settings.http_max_response)
            stack.push_async_callback(self._outbound.close)
            stack.push_async_callback(self._statements.close)
            await self._suspects.tell(self._claims.release)
            await self._claims.open(self._before)
            self._opened = time.monotonic()
            await control.add_listener("df_work", lambda *_: self._wake.set())
            await control.add_listener("df_cancel", self._on_cancel)
            await control.add_listener("df_signal", self._on_signal)
            await self._refresh()
            log.info("engine %s runs", self.id)
            loops = [self._claiming(), self._checkpointer.run(), self._showing()]
            loops += [self._reading_mail()]
            loops += [self._lane.drive(conn) for conn in lanes]
            failed = False
            try:
                async with asyncio.TaskGroup() as group:
                    for loop in loops:
                        group.create_task(loop)
            except ExceptionGroup as e:
                failed = not any(is_away(error) for error in e.exceptions)
                raise e.exceptions[0] from e
            finally:
                await self._drop_runs()
                await self._close(failed=failed)

    async def _connection(self, stack: AsyncExitStack) -> Connection:
        conn = await self._logins.connect(ENGINE)
        conn.add_log_listener(self._suspects.on_notice)
        stack.callback(conn.terminate)
        return conn

    async def _lane_connection(self, stack: AsyncExitStack) -> Connection:
        conn = await self._logins.connect_as(RUN_ROLE, BATCHES)
        conn.add_log_listener(self._suspects.on_notice)
        stack.callback(conn.terminate)
        return conn

    async def _close(self, *, failed: bool) -> None:
        try:
            async with asyncio.timeout(2):
                await self._claims.close(failed=failed)
        except ANY as e:
            log.warning("engine %s could not give its runs back (%s); others take them", self.id, e)

    async def _drop_runs(self) -> None:
        tasks = [task for _, task in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- claiming

    async def _claiming(self) -> None:
        """Heartbeats once a second and claims when something is due, as far as there is room."""
        beat = 0.0
        while True:
            if time.monotonic() - beat >= BEAT:
                beat = time.monotonic()
                await self._beat()
            room = self._room()
            if not room:
                await asyncio.sleep(LOOK_EVERY)
                self._wake.set()  # what came meanwhile
                continue
            if self._wake.is_set() or (self._due is not None and self._due <= self.now()):
                self._wake.clear()
                await self._claim(min(room, 100))
                if room < ROOM:  # not a claim for each run that ends
                    await asyncio.sleep(LOOK_EVERY)
                continue
            wait = max(0.01, beat + BEAT - time.monotonic())
            if self._due is not None:
                wait = max(0.001, min(wait, self._due - self.now()))
            if self._look_until is not None:
                wait = min(wait, LOOK_EVERY)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                self._look()

    def _room(self) -> int:
        """How many more runs it makes sense to have in memory; none while there is more work for
        the database and the step services than they can do.
        """
        if (
            self._lane.backlog > ENOUGH
            or self._outbound.crowded(ENOUGH)
            or self._statements.crowded(ENOUGH)
        ):
            return 0
        return max(0, self._settings.engine_instances - len(self._runs))

    def _look(self) -> None:
        """A busy engine looks for work by itself, for as long as it has promised and once more."""
        if self._look_until is not None:
            self._wake.set()
            if time.monotonic() > self._look_until:
                self._look_until = None

    async def _beat(self) -> None:
        if self._careful and time.monotonic() - self._opened > CAREFUL:
            self._careful = False
            await self._claims.hurry()
        at, alive, due = await self._claims.beat()
        self._clock = (at.timestamp(), time.monotonic())
        self._due = due.timestamp() if due is not None else None
        if not alive:
            raise ConnectionError("this engine was declared dead: its heartbeat came too late")

    async def _claim(self, most: int) -> None:
        crash_point("before_claim")
        self._cancelled.clear()
        promise = len(self._runs) >= BUSY
        rows = await self._claims.claim(most, promise=promise)
        if promise:
            self._look_until = time.monotonic() + LOOK_FOR
        crash_point("after_claim_instance")
        self._due = None
        if len(rows) == most:
            self._wake.set()
        if rows:
            for claim in await self._claims.resolve(rows):
                self._begin(claim)

    def _begin(self, claim: Claim) -> None:
        if claim.instance in self._cancelled:
            return
        run = Run(claim, self)
        task = asyncio.create_task(self._guard(run), name=f"run {claim.instance}")
        self._runs[claim.instance] = (run, task)
        task.add_done_callback(lambda done: self._forget(claim.instance, done))

    def _forget(self, instance: str, task: asyncio.Task[None]) -> None:
        if instance in self._runs and self._runs[instance][1] is task:
            del self._runs[instance]

    async def _guard(self, run: Run) -> None:
        """The top of a run: whatever happens, the engine lives on and the run is given back."""
        reason: str | None = None
        try:
            await run.run()
            self._finished += 1
            return
        except ClaimLost:
            return
        except Exception as e:
            if not is_away(e):
                log.exception("instance %s: the engine failed", run.instance)
                reason = f"the engine failed on this instance: {type(e).__name__}: {e}"
            elif isinstance(e, SessionEnded):
                log.warning("instance %s: %s", run.instance, e)
                reason = None if e.bystander else str(e)
                if e.silent:
                    self._suspects.add(run.instance, run.claim.token, f"{e}, and the server too")
            else:
                log.info("instance %s is given back: %s", run.instance, e)
        try:
            await self._claims.release(run.instance, run.claim.token, reason)
            self._suspects.drop(run.instance)
        except Exception as e:
            log.warning("instance %s could not be given back: %s", run.instance, e)

    def _on_cancel(self, _conn: Any, _pid: int, _channel: str, payload: Any) -> None:
        self._cancelled.add(str(payload))  # it may be claimed, and not begun yet
        found = self._runs.get(str(payload))
        if found:
            found[1].cancel()

    async def _showing(self) -> None:
        """Writes what has been unseen for a while: running nodes, results nobody took along."""
        while True:
            await asyncio.sleep(SHOW_AFTER / 2)
            parking = []
            for run, task in self._runs.values():
                for entry in run.journal.overdue(SHOW_AFTER):
                    self._checkpointer.add(entry)
                if (parked := run.journal.parked()) is not None:
                    crash_point("before_park")
                    # queued at once: what the run writes from here on must come after it
                    parking.append(self._park(run, task, self._checkpointer.queue(parked)))
            await asyncio.gather(*parking)

    async def _park(self, run: Run, task: asyncio.Task[None], landed: asyncio.Future[None]) -> None:
        """The run leaves memory; its wake-up time or a signal brings it back, here or elsewhere."""
        try:
            await landed
            crash_point("after_park")
        except ClaimLost:
            log.info("instance %s was lost while it was parked", run.instance)
        except Spoiled as e:
            reason = f"the engine could not park this instance: {e}"
            await self._claims.release(run.instance, run.claim.token, reason)
        task.cancel()
        self._parked += 1

    async def _reading_mail(self) -> None:
        """One query for all runs that wait for a signal and were told of one."""
        while True:
            await self._letters.wait()
            self._letters.clear()
            instances, self._addressed = list(self._addressed), {}
            mail: dict[str, list[tuple[int, str, str]]] = {i: [] for i in instances}
            for row in await self._claims.mail(instances):
                mail[row["instance_id"]].append((row["id"], row["name"], row["data"]))
            for instance, letters in mail.items():
                if instance in self._runs:
                    self._runs[instance][0].leaves.deliver(letters)

    async def check_mail(self, instance: str) -> None:
        """Has the run's signals read soon."""
        self._addressed[instance] = None
        self._letters.set()

    def _on_signal(self, _conn: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload in self._runs:
            self._addressed[str(payload)] = None
            self._letters.set()

    # -- what runs ask for

    async def submit(self, entry: Entry) -> None:
        await self._checkpointer.submit(entry)

    async def ride(self, ride: Ride) -> Result:
        crash_point("before_ride")
        result = await self._lane.run(ride)
        crash_point("after_ride")
        return result

    def rides(self, role: str) -> bool:
        return role == RUN_ROLE

    async def execute(self, statement: Statement) -> Result:
        crash_point("before_statement")
        result = await self._statements.run(statement)
        crash_point("after_statement")
        return result

    async def execute_in(self, database: str, role: str, text: str) -> Result:
        return await self._statements.run_in(database, role, text)

    async def call(
        self, spec: Mapping[str, Any], fill: Callable[[str], str], pause: Pause
    ) -> Result:
        result = await self._outbound.call(spec, fill, pause, self._refresh)
        crash_point("after_answer")
        return result

    def now(self) -> float:
        """The database's time in seconds since 1970: the last heartbeat's plus the time since."""
        at, when = self._clock
        return at + time.monotonic() - when

    async def _refresh(self) -> None:
        """Reads the registered base URLs anew, for all who ask at once, at most once a second."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read_bases())
        await asyncio.shield(self._refreshing)

    async def _read_bases(self) -> None:
        await asyncio.sleep(max(0.0, self._bases_read + BEAT - time.monotonic()))
        self._targets.register(await self._claims.base_urls())
        self._bases_read = time.monotonic()

    def stats(self) -> dict[str, Any]:
        return {
            "engine_id": str(self.id),
            "instances": len(self._runs),
            "finished": self._finished,
            "parked": self._parked,
            "flushes": self._checkpointer.flushes if self._opened else 0,
            "batches": self._lane.batches,
            "batched_nodes": self._lane.rides,
            "calls": self._outbound.calls if self._opened else 0,
            "repeated_calls": self._outbound.repeats if self._opened else 0,
        }
