"""One session of an engine with the database: it claims instances and runs them to their end.

A control connection (heartbeat, claims, LISTEN), a connection for checkpoints, and connections of
pgflows_run for batches. When any of them breaks, the session ends and drops every run in memory:
nothing that matters is only in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from pgflows.config import Settings
from pgflows.database.connections import BATCHES, ENGINE, Connection
from pgflows.database.faults import ANY, is_away
from pgflows.database.roles import RUN_ROLE, Logins
from pgflows.engine.call.base_urls import BaseUrls
from pgflows.engine.call.calls import Calls
from pgflows.engine.call.steps import StepCalls
from pgflows.engine.call.targets import Targets
from pgflows.engine.claiming import Claiming
from pgflows.engine.claims import Claims
from pgflows.engine.clock import Clock
from pgflows.engine.mail import Mail
from pgflows.engine.runs import Runs
from pgflows.engine.sql.statements import Statements
from pgflows.engine.suspects import Suspects
from pgflows.engine.walk.rooms import Rooms
from pgflows.engine.write.batches import Batches
from pgflows.engine.write.checkpoint import Checkpointer

log = logging.getLogger("pgflows.engine")

BATCH_CONNECTIONS = 2
CLOSE_SECONDS = 2.0  # the longest that an end in order may take


class EngineSession:
    """One life of an engine with the database."""

    def __init__(
        self, settings: Settings, logins: Logins, before: uuid.UUID | None, suspects: Suspects
    ) -> None:
        self.id = uuid.uuid4()
        self._before = before
        self._suspects = suspects
        self._settings = settings
        self._logins = logins
        self._opened: float | None = None
        self._runs: Runs | None = None
        self._rooms: Rooms | None = None

    @property
    def lasted(self) -> float:
        """Seconds since it was open."""
        return time.monotonic() - self._opened if self._opened is not None else 0.0

    async def live(self) -> None:
        """Opens what is needed and runs until a connection or a loop fails; raises its error."""
        async with AsyncExitStack() as stack:
            logins = self._logins
            control = self._watched(stack, await logins.connect(ENGINE))
            await logins.learn(control)
            checkpoints = self._watched(stack, await logins.connect(ENGINE))
            batching = [
                self._watched(stack, await logins.connect_as(RUN_ROLE, BATCHES))
                for _ in range(BATCH_CONNECTIONS)
            ]
            claims = Claims(control, self.id)
            base_urls = BaseUrls(Targets(self._settings.http_targets), claims.base_urls)
            rooms = self._rooms = Rooms(
                Checkpointer(checkpoints),
                Batches(),
                Statements(logins),
                Calls(base_urls, StepCalls(claims.await_steps), self._settings.http_max_response),
                Mail(claims),
                Clock(),
            )
            stack.push_async_callback(rooms.calls.close)
            stack.push_async_callback(rooms.statements.close)
            await self._suspects.tell(claims.release)
            await claims.open(self._before)
            self._opened = time.monotonic()
            runs = self._runs = Runs(rooms, claims, self._suspects)
            claiming = Claiming(claims, runs, rooms, self._settings.engine_instances)
            failed = False
            try:
                await _listen(control, claiming, runs, rooms.mail)
                await base_urls.refresh()
                log.info("engine %s runs", self.id)
                await _run_all(
                    claiming.keep_claiming(),
                    rooms.checkpointer.keep_flushing(),
                    runs.keep_showing(claiming.wake),
                    rooms.mail.keep_reading(runs.deliver),
                    *(rooms.batches.keep_running(conn) for conn in batching),
                )
            except Exception as e:
                failed = not is_away(e)
                raise
            finally:
                await runs.drop_all()
                await self._close(claims, failed=failed)

    def _watched(self, stack: AsyncExitStack, conn: Connection) -> Connection:
        conn.add_log_listener(self._suspects.on_notice)
        stack.callback(conn.terminate)
        return conn

    async def _close(self, claims: Claims, *, failed: bool) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await claims.close(failed=failed)
        except ANY as e:
            log.warning("engine %s could not give its runs back (%s); others take them", self.id, e)

    def stats(self) -> dict[str, Any]:
        rooms, runs = self._rooms, self._runs
        return {
            "engine_id": str(self.id),
            "instances": len(runs) if runs is not None else 0,
            "finished": runs.finished if runs is not None else 0,
            "parked": runs.parked if runs is not None else 0,
            "flushes": rooms.checkpointer.flushes if rooms else 0,
            "batches": rooms.batches.batches if rooms else 0,
            "batched_nodes": rooms.batches.nodes if rooms else 0,
            "calls": rooms.calls.calls if rooms else 0,
            "repeated_calls": rooms.calls.repeats if rooms else 0,
        }


async def _listen(control: Connection, claiming: Claiming, runs: Runs, mail: Mail) -> None:
    def on_signal(_conn: Any, _pid: int, _channel: str, instance: Any) -> None:
        if instance in runs:
            mail.ask(str(instance))

    def on_cancel(_conn: Any, _pid: int, _channel: str, instance: Any) -> None:
        runs.cancel(str(instance))

    await control.add_listener("df_work", lambda *_: claiming.wake())
    await control.add_listener("df_cancel", on_cancel)
    await control.add_listener("df_signal", on_signal)


async def _run_all(*loops: Coroutine[Any, Any, None]) -> None:
    """Runs the loops until one of them fails; raises the first error alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop)
    except ExceptionGroup as e:
        raise e.exceptions[0] from e
