"""Signals for the runs in memory, read by one query for all runs that were told of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pgflows.engine.claims import Claims

Letter = tuple[int, str, str]  # id, name, data as JSON text
Deliver = Callable[[str, list[Letter]], None]


class Mail:
    """Which runs want their signals read, and the loop that reads them."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._wanted: dict[str, None] = {}
        self._reading: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    def ask(self, instance: str) -> None:
        """Has the signals of this run read soon."""
        self._wanted[instance] = None
        self._wake.set()

    def __contains__(self, instance: object) -> bool:
        """Whether signals of this run are about to be delivered."""
        return instance in self._wanted or instance in self._reading

    async def keep_reading(self, deliver: Deliver) -> None:
        """Reads for ever; `deliver` gets each run's signals, oldest first."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            instances, self._wanted = list(self._wanted), {}
            self._reading = frozenset(instances)
            letters: dict[str, list[Letter]] = {i: [] for i in instances}
            for row in await self._claims.mail(instances):
                letters[row["instance_id"]].append((row["id"], row["name"], row["data"]))
            self._reading = frozenset()
            for instance, found in letters.items():
                deliver(instance, found)
