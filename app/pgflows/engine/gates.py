"""How many calls go to one server at once, and who waits for a place there."""

from __future__ import annotations

import asyncio
import time

TURN_SECONDS, FLOWS_SECONDS = 2.0, 0.5


class Gate:
    """The places at one server, given out in the order of the asking."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._waiting: dict[object, float] = {}

    @property
    def queue(self) -> int:
        return len(self._waiting)

    @property
    def flows(self) -> bool:
        """Nobody has waited for long."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is None or time.monotonic() - oldest < FLOWS_SECONDS

    async def enter(self) -> bool:
        """False where no place became free in time."""
        if self._places.locked():
            me = object()
            self._waiting[me] = time.monotonic()
            try:
                async with asyncio.timeout(TURN_SECONDS):
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
