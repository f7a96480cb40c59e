"""The one step path: whoever asks for a step, it runs here.

A request takes a slot, claims the step in the ledger, has its attempts made and is answered only
when the outcome is recorded. A request for a step that is running joins it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any, Self, TypeAlias
from uuid import UUID

from pgflows.app import WorkflowApp
from pgflows.config import Settings
from pgflows.crash import crash_point
from pgflows.definitions import Step, call_timeout
from pgflows.errors import ServiceUnavailable
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.request import SignedRun, StepRequest
from pgflows.messages import StepStats
from pgflows.runner.attempts import Attempts, outcome_of
from pgflows.runner.exits import contained
from pgflows.runner.functions import StepFunctions
from pgflows.runner.outcome import Later, Outcome, Running
from pgflows.runner.waiting import ends_within

MARGIN_SECONDS = 5.0  # of a call's time, left for its answer
SLOT_SECONDS = 1.0  # that a request waits for a slot: a refusal costs its caller as much
FIRST_LOOK_SECONDS = 0.02  # between two looks at a step that another process runs
LONGEST_LOOK_SECONDS = 0.5
BUSY_SECONDS = 1.0  # after which a refused request should be made again
MOST_LEFT_BEHIND = 100  # functions of steps that go on past their time limit
DRAIN_SECONDS = 5.0  # for steps to end when the service stops
RELEASE_SECONDS = 2.0  # for those that did not to be released

Key: TypeAlias = tuple[UUID | SignedRun, str]


class Runner:
    """Runs the steps of an app. `async with` drains it at the end."""

    def __init__(self, app: WorkflowApp, ledger: Ledger, settings: Settings) -> None:
        self._app = app
        self._ledger = ledger
        self._running: dict[Key, asyncio.Task[Outcome]] = {}
        self._slots = asyncio.Semaphore(settings.step_concurrency)
        self._slot_count = settings.step_concurrency
        self._functions = StepFunctions(settings.step_concurrency, MOST_LEFT_BEHIND)
        self._attempts = Attempts(app, ledger, self._functions)
        self._open = ExitStack()

    async def __aenter__(self) -> Self:
        self._open.enter_context(contained())
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._open:
            await self.drain()

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Lets running steps end. Those that do not are cancelled and released to other services;
        without the database they are left, and taken over like those of a process that died.
        """
        running = set(self._running.values())
        for limit in (seconds, RELEASE_SECONDS, None):
            if running:
                _, running = await asyncio.wait(running, timeout=limit)
            for task in running:
                task.cancel()
        self._functions.close()

    def stats(self) -> StepStats:
        """What this runner is doing."""
        return StepStats(
            running=len(self._running),
            slots=self._slot_count,
            left_behind=self._functions.left_behind,
            left_behind_limit=self._functions.most_left_behind,
        )

    async def run_step(self, request: StepRequest) -> Outcome:
        """Answers a request for a known step. A caller that goes away stops nothing."""
        step = self._app.steps[request.step]
        deadline = time.monotonic() + call_timeout(self._app.step_timeout(step)) - MARGIN_SECONDS
        key = (request.instance, request.step_key)
        task = self._running.get(key)
        if task is None:
            if self._functions.is_full:
                return Later(BUSY_SECONDS, "too many steps here go on past their time limits")
            if not await self._take_slot():
                return Later(BUSY_SECONDS, "this service runs as many steps as it may")
            task = self._running.get(key)
            if task is None:
                task = asyncio.create_task(self._run(step, request, deadline))
                self._running[key] = task
                task.add_done_callback(lambda ended: self._forget(key, ended))
            else:
                self._slots.release()  # another request began it meanwhile
        if not await ends_within(task, deadline - time.monotonic()):
            return Running()
        if task.cancelled():
            raise ServiceUnavailable("this service is shutting down")
        return task.result()

    async def _take_slot(self) -> bool:
        if not self._slots.locked():
            return await self._slots.acquire()
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                return await self._slots.acquire()
        except TimeoutError:
            return False

    def _forget(self, key: Key, task: asyncio.Task[Outcome]) -> None:
        del self._running[key]
        self._slots.release()
        if not task.cancelled():
            task.exception()  # looked at: the caller may have gone away

    async def _run(self, step: Step[Any, Any], request: StepRequest, deadline: float) -> Outcome:
        look = FIRST_LOOK_SECONDS
        while True:
            claim = await self._ledger.claim(request)
            match claim.verdict:
                case "run":
                    crash_point("after_claim")
                    return await self._attempts.run(step, request, claim, deadline)
                case "later" if time.monotonic() + claim.retry_in < deadline:
                    await asyncio.sleep(claim.retry_in)
                case "running" if time.monotonic() + look < deadline:
                    await asyncio.sleep(look)
                    look = min(look * 2, LONGEST_LOOK_SECONDS)
                case _:
                    return outcome_of(claim)
