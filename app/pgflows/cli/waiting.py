"""Waits for a database that is there but cannot serve yet: it starts, is full, or is read-only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgflows.database.faults import is_busy, reason

T = TypeVar("T")
log = logging.getLogger("pgflows.cli")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0


async def until_served(act: Callable[[], Awaitable[T]]) -> T:
    """What `act` returns, as soon as the database lets it. Each try that fails is a line."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await act()
        except Exception as e:
            cause = e if is_busy(e) else e.__cause__
            if cause is None or not is_busy(cause):
                raise
            log.warning("the database cannot serve now; trying again: %s", reason(cause))
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
