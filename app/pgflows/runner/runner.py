"""The one step path: whoever asks for a step, it runs here.

A request takes a slot, claims the step in the ledger, has its attempts made and is answered only
when the outcome is recorded. A request for a step that is running joins it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeAlias
from uuid import UUID

from pgflows.config import Settings
from pgflows.crash import crash_point
from pgflows.errors import ServiceUnavailable
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.request import SignedRun, StepRequest
from pgflows.registry import Step, WorkflowApp, call_timeout
from pgflows.runner.attempts import Attempts, outcome_of
from pgflows.runner.outcome import Later, Outcome, Running

MARGIN_SECONDS = 5.0  # of a call's time, left for its answer
SLOT_SECONDS = 1.0  # that a request waits for a slot: a refusal costs its caller as much
FIRST_LOOK_SECONDS = 0.02  # between two looks at a step that another process runs
LONGEST_LOOK_SECONDS = 0.5
DRAIN_SECONDS = 5.0

Key: TypeAlias = tuple[UUID | SignedRun, str]


class Runner:
    """Runs the steps of an app. `async with` drains it at the end."""

    def __init__(self, app: WorkflowApp, ledger: Ledger, settings: Settings) -> None:
        self._app = app
        self._ledger = ledger
        self._running: dict[Key, asyncio.Task[Outcome]] = {}
        self._slots = asyncio.Semaphore(settings.step_concurrency)
        self._threads = ThreadPoolExecutor(settings.step_concurrency, "pgflows-step")
        self._attempts = Attempts(app, ledger, self._threads)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Lets running steps end; those that do not are cancelled, and taken over elsewhere."""
        tasks = list(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run_step(self, request: StepRequest) -> Outcome:
        """Answers a request for a known step. A caller that goes away stops nothing."""
        step = self._app.steps[request.step]
        deadline = time.monotonic() + call_timeout(self._app.step_timeout(step)) - MARGIN_SECONDS
        key = (request.instance, request.step_key)
        task = self._running.get(key)
        if task is None:
            if not await self._take_slot():
                return Later(1.0, "this service runs as many steps as it may")
            task = self._running.get(key)
            if task is None:
                task = asyncio.create_task(self._run(step, request, deadline))
                self._running[key] = task
                task.add_done_callback(lambda ended: self._forget(key, ended))
            else:
                self._slots.release()  # another request began it meanwhile
        await asyncio.wait([task], timeout=deadline - time.monotonic())
        if task.cancelled():
            raise ServiceUnavailable("this service is shutting down")
        return task.result() if task.done() else Running()

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
