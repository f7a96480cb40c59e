"""The registered base URLs of step services, as the database has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pgflows.engine.call.targets import Targets

READ_EVERY = 1.0  # seconds


class BaseUrls:
    """Keeps `targets` up to date. `read` asks the database."""

    def __init__(self, targets: Targets, read: Callable[[], Awaitable[list[str]]]) -> None:
        self.targets = targets
        self._read = read
        self._read_at = -READ_EVERY
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Reads them anew: once for all callers of a moment, and at most once a second."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh())
        await asyncio.shield(self._reading)

    async def _refresh(self) -> None:
        await asyncio.sleep(max(0.0, self._read_at + READ_EVERY - time.monotonic()))
        self.targets.register(await self._read())
        self._read_at = time.monotonic()
