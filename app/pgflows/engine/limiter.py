"""How many calls go to one server at once, or statements of one role; who waits for a place."""

from __future__ import annotations

import asyncio
import time

TURN_SECONDS, FLOWS_SECONDS = 2.0, 0.5


class Gate:
    """Some places, given out in the order of the asking, to who waits so many seconds at most.

    A semaphore with a time-out: `asyncio.timeout` around one would cost more than a call's turn.
    """

    def __init__(self, places: int, seconds: float = TURN_SECONDS) -> None:
        self._free = places
        self._seconds = seconds
        self._waiting: dict[asyncio.Future[bool], float] = {}

    def crowded(self, enough: int) -> bool:
        """More than enough wait, though none of them for long: more work would only wait too.

        Where somebody has waited for long, others need not wait because of it.
        """
        if len(self._waiting) <= enough:
            return False
        return time.monotonic() - next(iter(self._waiting.values())) < FLOWS_SECONDS

    async def enter(self) -> bool:
        """False where no place became free in time."""
        if self._free:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting[turn] = time.monotonic()
        timer = loop.call_later(self._seconds, _tell, turn, False)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self.release()  # its turn had come
            raise
        finally:
            timer.cancel()
            self._waiting.pop(turn, None)

    def release(self) -> None:
        """Hands the place to who has waited longest; nobody who comes now is before them."""
        while self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if _tell(turn, True):
                return
        self._free += 1


def _tell(turn: asyncio.Future[bool], yes: bool) -> bool:
    """False where nobody listens any more."""
    if turn.done():
        return False
    turn.set_result(yes)
    return True
