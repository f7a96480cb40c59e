"""The database's time, as an engine knows it between two heartbeats."""

from __future__ import annotations

import datetime as dt
import time


class Clock:
    """The time of the last heartbeat plus what has passed since; this machine's own time of day is
    never asked.
    """

    def __init__(self) -> None:
        self._database = 0.0  # seconds since 1970
        self._local = 0.0  # seconds of the monotonic clock, at the same moment

    def set(self, at: dt.datetime) -> None:
        self._database, self._local = at.timestamp(), time.monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._database + time.monotonic() - self._local
