"""Runs whose statement seems to have taken the whole server down.

The session of such a statement ends in silence, while the server tells all other sessions that one
of its processes died. The engine can count that against the run only when the server is back, so
what it saw is kept from one session of the engine to the next.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from pgflows.database.faults import CRASHED

log = logging.getLogger("pgflows.engine")

Release = Callable[[str, uuid.UUID, str], Awaitable[None]]


class Suspects:
    """What one engine saw. It outlives the engine's sessions."""

    def __init__(self) -> None:
        self._silent: dict[str, tuple[uuid.UUID, str]] = {}
        self._known: dict[str, tuple[uuid.UUID, str]] = {}
        self._crashed = False

    def on_notice(self, _conn: Any, message: Any) -> None:
        """A log listener for the connections of a session."""
        self._crashed |= message.sqlstate == CRASHED

    def add(self, instance: str, token: uuid.UUID, reason: str) -> None:
        """The session of this run's statement ended in silence."""
        self._silent[instance] = (token, reason)

    def drop(self, instance: str) -> None:
        """The database knows it now."""
        self._silent.pop(instance, None)

    def settle(self) -> None:
        """The engine's session is over. If the server did not crash, silence means nothing."""
        if self._crashed:
            self._known |= self._silent
        self._silent, self._crashed = {}, False

    async def tell(self, release: Release) -> None:
        """Counts it against the runs, under the claims that they still have."""
        while self._known:
            instance, (token, reason) = next(iter(self._known.items()))
            log.warning("instance %s: %s", instance, reason)
            await release(instance, token, reason)
            del self._known[instance]
