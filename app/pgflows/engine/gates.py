"""How many calls go to one server at once, or statements of one role; who waits for a place."""

from __future__ import annotations

import asyncio
import time

TURN_SECONDS, FLOWS_SECONDS = 2.0, 0.5


class Gate:
    """Some places, given out in the order of the asking, to who waits so many seconds at most."""

    def __init__(self, places: int, seconds: float = TURN_SECONDS) -> None:
        self._places = asyncio.Semaphore(places)
        self._seconds = seconds
        self._waiting: dict[object, float] = {}

    def crowded(self, enough: int) -> bool:
        """More than enough wait, though none of them for long: more work would only wait too.

        Where somebody has waited for long, others need not wait because of it.
        """
        if len(self._waiting) <= enough:
            return False
        return time.monotonic() - next(iter(self._waiting.values())) < FLOWS_SECONDS

    async def enter(self) -> bool:
        """False where no place became free in time."""
        if self._places.locked():
            me = object()
            self._waiting[me] = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds):
                    await self._places.acquire()
            except TimeoutError:
                return False
            finally:
                del self._waiting[me]
        else:
            await self._places.acquire()
        return True

    def release(self) -> None:
        self._places.release()
