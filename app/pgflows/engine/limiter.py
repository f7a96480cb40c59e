"""Limits how many calls one server gets at once, or how many statements run as one role."""

from __future__ import annotations

import asyncio
import time

WAIT_SECONDS = 2.0  # the longest wait for a slot
FLOWS_SECONDS = 0.5  # slots are given out in good time while nobody waits for longer than this


class Limiter:
    """A fixed number of slots, granted first come, first served.

    A semaphore with a time-out; `asyncio.timeout` around one would cost more than the wait.
    """

    def __init__(self, slots: int, seconds: float = WAIT_SECONDS) -> None:
        self._free = slots
        self._seconds = seconds
        self._waiting: dict[asyncio.Future[bool], float] = {}

    def crowded(self, limit: int) -> bool:
        """True if more than `limit` callers wait, and none of them for long: another would only
        wait too.

        Once somebody has waited for long, the slots may be blocked, and callers that need others
        should not be held back because of it.
        """
        if len(self._waiting) <= limit:
            return False
        return time.monotonic() - next(iter(self._waiting.values())) < FLOWS_SECONDS

    async def enter(self) -> bool:
        """Takes a slot. Returns False if none became free within the limiter's seconds."""
        if self._free:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting[turn] = time.monotonic()
        timer = loop.call_later(self._seconds, _answer, turn, False)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self.release()  # the slot was granted before the cancellation was noticed
            raise
        finally:
            timer.cancel()
            self._waiting.pop(turn, None)

    def release(self) -> None:
        """Gives the slot to the caller that has waited longest."""
        while self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if _answer(turn, True):
                return
        self._free += 1


def _answer(turn: asyncio.Future[bool], granted: bool) -> bool:
    """Returns False if nobody waits for this answer any more."""
    if turn.done():
        return False
    turn.set_result(granted)
    return True
