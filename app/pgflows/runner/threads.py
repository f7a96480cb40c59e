"""Threads for steps that are not async.

They are daemon threads: a step that blocks for ever keeps neither another step nor the end of the
process waiting. There is always one to be had, so a step never waits for a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    act: Callable[[], T]
    future: asyncio.Future[T]


class StepThreads:
    """Starts threads as they are needed and keeps up to `idle` of them for the next steps.

    Belongs to one event loop: only its methods that run there touch the list of idle threads.
    """

    def __init__(self, idle: int) -> None:
        self._most_idle = idle
        self._idle: list[SimpleQueue[_Job[object] | None]] = []
        self._started = 0

    def start(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """Calls `act`, which must not raise, in a thread."""
        loop = asyncio.get_running_loop()
        job = _Job(act, loop.create_future())
        if self._idle:
            jobs = self._idle.pop()
        else:
            jobs = SimpleQueue()
            self._started += 1
            threading.Thread(
                target=self._work,
                args=(loop, jobs),
                name=f"pgflows-step-{self._started}",
                daemon=True,
            ).start()
        jobs.put(job)
        return job.future

    def close(self) -> None:
        """Ends the idle threads; those that still run a step end with the process."""
        self._most_idle = 0
        for jobs in self._idle:
            jobs.put(None)
        self._idle.clear()

    def _work(
        self, loop: asyncio.AbstractEventLoop, jobs: SimpleQueue[_Job[object] | None]
    ) -> None:
        while job := jobs.get():
            result = job.act()
            with suppress(RuntimeError):  # the loop is closed: nobody waits for the result
                loop.call_soon_threadsafe(self._end, jobs, job, result)

    def _end(
        self, jobs: SimpleQueue[_Job[object] | None], job: _Job[object], result: object
    ) -> None:
        if not job.future.done():
            job.future.set_result(result)
        if len(self._idle) < self._most_idle:
            self._idle.append(jobs)
        else:
            jobs.put(None)
