"""The runs that one session of an engine has in memory: each is a task that walks its graph."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pgflows.crash import crash_point
from pgflows.database.faults import is_away
from pgflows.engine.claims import Claim, Claims
from pgflows.engine.mail import Letter
from pgflows.engine.sql.statements import SessionEnded
from pgflows.engine.suspects import Suspects
from pgflows.engine.walk.rooms import Rooms
from pgflows.engine.walk.run import Run
from pgflows.engine.write.checkpoint import ClaimLost, Entry, Spoiled

log = logging.getLogger("pgflows.engine")

SHOW_SECONDS = 0.25  # a node that takes longer is shown as running


class Runs:
    """Begins runs, and whatever becomes of one: it ends, is given back, parked or cancelled."""

    def __init__(self, rooms: Rooms, claims: Claims, suspects: Suspects) -> None:
        self._rooms = rooms
        self._claims = claims
        self._suspects = suspects
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._cancelled: set[str] = set()
        self.finished = 0
        self.parked = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, instance: object) -> bool:
        return instance in self._runs

    # -- from claim to end

    def expect(self) -> None:
        """Remembers every cancel from now on, because runs are about to be claimed."""
        self._cancelled.clear()

    def begin(self, claim: Claim) -> None:
        if claim.instance in self._cancelled:
            return
        run = Run(claim, self._rooms)
        task = asyncio.create_task(self._walk(run), name=f"run {claim.instance}")
        self._runs[claim.instance] = (run, task)
        task.add_done_callback(lambda done: self._forget(claim.instance, done))

    def _forget(self, instance: str, task: asyncio.Task[None]) -> None:
        if instance in self._runs and self._runs[instance][1] is task:
            del self._runs[instance]

    async def _walk(self, run: Run) -> None:
        """The top of a run: whatever happens, the engine lives on and the run is given back."""
        reason: str | None = None
        try:
            await run.walk()
            self.finished += 1
            return
        except ClaimLost:
            return
        except Exception as e:
            if not is_away(e):
                log.exception("instance %s: the engine failed", run.instance)
                reason = f"the engine failed on this instance: {type(e).__name__}: {e}"
            elif isinstance(e, SessionEnded):
                log.warning("instance %s: %s", run.instance, e)
                reason = None if e.server_crashed else str(e)
                if e.silent:
                    self._suspects.add(run.instance, run.token, f"{e}, and the server too")
            else:
                log.info("instance %s is given back: %s", run.instance, e)
        try:
            await self._claims.release(run.instance, run.token, reason)
            self._suspects.drop(run.instance)
        except Exception as e:
            log.warning("instance %s could not be given back: %s", run.instance, e)

    def cancel(self, instance: str) -> None:
        """The database has cancelled it. It may be claimed and not begun yet."""
        self._cancelled.add(instance)
        found = self._runs.get(instance)
        if found:
            found[1].cancel()

    async def drop_all(self) -> None:
        """Ends every task; the claims are given back elsewhere."""
        tasks = [task for _, task in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- while one waits

    def deliver(self, instance: str, letters: list[Letter]) -> None:
        """Hands signals to a run, if it is still here."""
        if instance in self._runs:
            self._runs[instance][0].deliver(letters)

    async def keep_showing(self, wake: Callable[[], None]) -> None:
        """Writes what nobody has seen for a while, and lets runs that only wait leave memory.

        Calls `wake` after some have left that wait for signals: one may have come meanwhile.
        """
        while True:
            await asyncio.sleep(SHOW_SECONDS / 2)
            parking = []
            for run, task in self._runs.values():
                for entry in run.overdue(SHOW_SECONDS):
                    self._rooms.checkpointer.add(entry)
                if run.instance in self._rooms.mail:
                    continue  # what it waits for may be there
                if (parked := run.parked()) is not None:
                    crash_point("before_park")
                    # queued at once: what the run writes from here on must come after it
                    queued = self._rooms.checkpointer.queue(parked)
                    parking.append(self._park(run, task, queued, parked))
            if any(await asyncio.gather(*parking)):
                wake()

    async def _park(
        self, run: Run, task: asyncio.Task[None], landed: asyncio.Future[None], entry: Entry
    ) -> bool:
        """The run leaves memory; its wake-up time or a signal brings it back, here or elsewhere.

        Returns whether it waits for a signal.
        """
        try:
            await landed
            crash_point("after_park")
        except ClaimLost:
            log.info("instance %s was lost while it was parked", run.instance)
        except Spoiled as e:
            reason = f"the engine could not park this instance: {e}"
            await self._claims.release(run.instance, run.token, reason)
        task.cancel()
        self.parked += 1
        return entry.state is not None and bool(entry.state.signals)
