"""When an engine claims, and how much: heartbeats, what is due, and the room that there is."""

from __future__ import annotations

import asyncio
import time

from pgflows.crash import crash_point
from pgflows.engine.claims import Claims
from pgflows.engine.runs import Runs
from pgflows.engine.walk.rooms import Rooms

BEAT_SECONDS = 1.0  # between two heartbeats
# A new engine commits its claims synchronously for this long: a crash caused by one of the claimed
# runs may be why it is new.
SYNCHRONOUS_SECONDS = 3.0
MOST_AT_ONCE = 100  # runs in one claim
CROWDED = 50  # nodes that wait; an engine with more than this claims nothing
SMALL_ROOM = 16  # runs; an engine with less room than this claims every few milliseconds only
POLL_ABOVE_RUNS = 32  # runs in memory; an engine with more polls, so that starts need not notify
POLL_SECONDS = 0.005  # between two looks for work; doubled while there is none
LONGEST_POLL_SECONDS = 0.02  # several engines would only take work from each other in smaller bites
POLL_FOR_SECONDS = 0.065  # df._claim is told 60 ms
SHORTEST_WAIT_SECONDS = 0.001


class Claiming:
    """One loop: it beats, and claims when something is due, as far as there is room."""

    def __init__(self, claims: Claims, runs: Runs, rooms: Rooms, most_runs: int) -> None:
        self._claims = claims
        self._runs = runs
        self._rooms = rooms
        self._clock = rooms.clock
        self._most_runs = most_runs
        self._wake = asyncio.Event()
        self._opened = time.monotonic()
        self._synchronous = True
        self._beat_at = 0.0
        self._due: float | None = None
        self._polls_until: float | None = None
        self._poll_seconds = POLL_SECONDS

    def wake(self) -> None:
        """There may be work."""
        self._wake.set()

    async def keep_claiming(self) -> None:
        """Raises ConnectionError once this engine was declared dead."""
        while True:
            if time.monotonic() - self._beat_at >= BEAT_SECONDS:
                self._beat_at = time.monotonic()
                await self._beat()
            room = self._room()
            if not room:
                await asyncio.sleep(POLL_SECONDS)
                self._wake.set()  # for what came meanwhile
            elif self._wake.is_set() or (self._due is not None and self._due <= self._clock.now()):
                self._wake.clear()
                await self._claim(min(room, MOST_AT_ONCE))
                if room < SMALL_ROOM:  # not a claim for each run that ends
                    await asyncio.sleep(POLL_SECONDS)
            else:
                await self._wait()

    def _room(self) -> int:
        """How many more runs it makes sense to have in memory: none while there is more work for
        the database and the step services than they can do.
        """
        if (
            self._rooms.batches.backlog > CROWDED
            or self._rooms.calls.crowded(CROWDED)
            or self._rooms.statements.crowded(CROWDED)
        ):
            return 0
        return max(0, self._most_runs - len(self._runs))

    async def _wait(self) -> None:
        """Until the next heartbeat, the next due instance or the next poll, unless woken before."""
        seconds = max(10 * SHORTEST_WAIT_SECONDS, self._beat_at + BEAT_SECONDS - time.monotonic())
        if self._due is not None:
            until_due = self._due - self._clock.now()
            seconds = max(SHORTEST_WAIT_SECONDS, min(seconds, until_due))
        if self._polls_until is not None:
            seconds = min(seconds, self._poll_seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._poll()

    def _poll(self) -> None:
        """A busy engine looks for work by itself, for as long as it said and once more."""
        if self._polls_until is not None:
            self._wake.set()
            if time.monotonic() > self._polls_until:
                self._polls_until = None

    async def _beat(self) -> None:
        if self._synchronous and time.monotonic() - self._opened > SYNCHRONOUS_SECONDS:
            self._synchronous = False
            await self._claims.commit_async()
        at, alive, due = await self._claims.beat()
        self._clock.set(at)
        self._due = due.timestamp() if due is not None else None
        if not alive:
            raise ConnectionError("this engine was declared dead: its heartbeat came too late")

    async def _claim(self, most: int) -> None:
        crash_point("before_claim")
        self._runs.expect()
        polls = len(self._runs) >= POLL_ABOVE_RUNS
        rows = await self._claims.claim(most, polls=polls)
        if polls:
            self._polls_until = time.monotonic() + POLL_FOR_SECONDS
        longer = min(2 * self._poll_seconds, LONGEST_POLL_SECONDS)
        self._poll_seconds = POLL_SECONDS if rows else longer
        crash_point("after_claim_instance")
        self._due = None
        if len(rows) == most:
            self._wake.set()
        if rows:
            for claim in await self._claims.resolve(rows):
                self._runs.begin(claim)
