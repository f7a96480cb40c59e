"""Keeps SystemExit and KeyboardInterrupt of a step inside its attempt.

asyncio ends the whole event loop when a task raises one of the two. A step itself is called by
`StepFunctions`, which catches them; a task that a step creates has a wrapper that turns them into
`StepExit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

EXITS = (SystemExit, KeyboardInterrupt)

in_step: ContextVar[bool] = ContextVar("pgflows_in_step", default=False)


class StepExit(BaseException):
    """A task of a step raised SystemExit or KeyboardInterrupt: `error` is it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def raised_by(error: BaseException) -> BaseException:
    """The error itself, or what a StepExit (alone or in a group) stands for."""
    if isinstance(error, BaseExceptionGroup):
        exits = [e for e in map(raised_by, error.exceptions) if isinstance(e, EXITS)]
        return exits[0] if exits else error
    return error.error if isinstance(error, StepExit) else error


@contextmanager
def contained() -> Iterator[None]:
    """Within the block, tasks that steps create on the running loop cannot end it."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def create(
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Future[Any]:
        if in_step.get():
            coro = _contain(coro)
        if before is not None:
            return before(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(create)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def _contain(coro: Any) -> Any:
    try:
        return await coro
    except EXITS as e:
        raise StepExit(e) from e
