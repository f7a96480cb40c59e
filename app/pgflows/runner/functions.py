"""Calls the functions of steps: one that is async in a task, any other in a thread.

Whatever a function does comes back as a value, and in time. A function that goes on past its
time limit is left behind: an async one if it ignores its cancellation, any other because a thread
cannot be stopped. Functions that were left behind are counted; when there are too many, no more
are called until some have ended.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgflows.context import StepContext
from pgflows.definitions import Step
from pgflows.runner.exits import in_step, raised_by
from pgflows.runner.threads import StepThreads
from pgflows.runner.waiting import ends_within

log = logging.getLogger("pgflows.step")

CANCEL_SECONDS = 1.0  # that an async function has to end after its cancellation


@dataclass(frozen=True, slots=True)
class Returned:
    output: Any


@dataclass(frozen=True, slots=True)
class Raised:
    error: BaseException


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function did not end within its time limit."""


Ending: TypeAlias = Returned | Raised | TimedOut


class StepFunctions:
    """Calls functions of steps and counts those that it had to leave behind."""

    def __init__(self, at_once: int, most_left_behind: int) -> None:
        self._threads = StepThreads(at_once)
        self.most_left_behind = most_left_behind
        self.left_behind = 0

    @property
    def is_full(self) -> bool:
        """Whether no more functions should be called for now."""
        return self.left_behind >= self.most_left_behind

    async def call(
        self, step: Step[Any, Any], context: StepContext, given: Any, seconds: float
    ) -> Ending:
        """How the function ended. Being cancelled, it cancels the function as well."""
        function: asyncio.Future[Ending]
        if step.is_async:
            function = asyncio.create_task(_in_task(step, context, given))
        else:
            here = copy_context()
            function = self._threads.start(lambda: here.run(_in_thread, step, context, given))
        try:
            await ends_within(function, seconds)
        except asyncio.CancelledError:
            function.cancel()
            raise
        if function.cancelled():  # by the step itself, which then returned at once
            return Raised(asyncio.CancelledError("the step cancelled its own task"))
        if function.done():
            return function.result()
        if step.is_async:
            function.cancel()
            await ends_within(function, CANCEL_SECONDS)
        if not function.done():
            self._leave_behind(function, context, seconds)
            return TimedOut()
        if function.cancelled():  # before it began
            return TimedOut()
        ending = function.result()
        if isinstance(ending, Raised) and isinstance(ending.error, asyncio.CancelledError):
            return TimedOut()
        return ending

    def close(self) -> None:
        self._threads.close()

    def _leave_behind(
        self, function: asyncio.Future[Ending], context: StepContext, seconds: float
    ) -> None:
        self.left_behind += 1
        log.error(
            "step %s of %s goes on past its time limit of %g s and cannot be stopped; "
            "%d such functions are left behind here, the limit is %d",
            context.step_key, context.instance_id, seconds,
            self.left_behind, self.most_left_behind,
        )  # fmt: skip

        def ended(_: object) -> None:
            self.left_behind -= 1
            log.warning(
                "step %s of %s ended after its time limit; its result is not used",
                context.step_key, context.instance_id,
            )  # fmt: skip

        function.add_done_callback(ended)


async def _in_task(step: Step[Any, Any], context: StepContext, given: Any) -> Ending:
    in_step.set(True)
    try:
        return Returned(await step(context, given))
    except BaseException as e:
        return Raised(raised_by(e))


def _in_thread(step: Step[Any, Any], context: StepContext, given: Any) -> Ending:
    try:
        return Returned(step.fn(context, given))
    except BaseException as e:
        return Raised(e)
