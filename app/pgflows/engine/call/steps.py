"""Calls of steps: the ledger decides whether a step has ended, whatever answers in its place.

Between an engine and a step service there may be a load balancer, an older replica that lacks the
step, or a service that is just starting. So an answer counts if it says by a header that the ledger
has the outcome of this step; after any other answer, or none, the ledger is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pgflows import headers
from pgflows.database.batching import Batcher
from pgflows.engine.call.answer import Answer

log = logging.getLogger("pgflows.engine")

LONGEST_REASON = 300  # characters
TELL_EVERY = 60.0  # seconds between two lines in the log about one step
MOST_TOLD = 1000  # steps whose last line in the log is kept in mind

Ask = Callable[[Sequence["Waiting"]], Awaitable[Sequence[bool]]]


@dataclass(frozen=True, slots=True)
class StepCall:
    """Which step of which run an HTTP node calls."""

    instance: str
    step_key: str

    def is_recorded(self, answer: Answer) -> bool:
        """Whether the answer says that the ledger has this step's outcome."""
        found = answer.header(headers.RECORDED.lower())
        return found == headers.recorded(self.instance, self.step_key)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step without an outcome, as far as its answer says, and what came instead of one."""

    call: StepCall
    reason: str


def step_call(given: Mapping[str, str]) -> StepCall | None:
    """None if the headers of a node do not name a step of a run."""
    instance, step_key = given.get(headers.INSTANCE), given.get(headers.STEP_KEY)
    return StepCall(instance, step_key) if instance and step_key else None


class StepCalls:
    """Asks the ledger for all calls of a moment at once. `ask` tells which steps are still open."""

    def __init__(self, ask: Ask) -> None:
        self._batcher: Batcher[Waiting, bool] = Batcher(ask)
        self._told_at: dict[str, float] = {}

    async def must_repeat(self, call: StepCall, url: str, reason: str) -> bool:
        """Whether the ledger has no outcome of the step, so that it must be called again."""
        reason = " ".join(reason.replace("\0", " ").split())[:LONGEST_REASON]
        is_open = await self._batcher.put(Waiting(call, reason))
        if is_open:
            self._tell(call, url, reason)
        return is_open

    def _tell(self, call: StepCall, url: str, reason: str) -> None:
        """One line a minute for each URL: many runs may wait for the same service."""
        now = time.monotonic()
        if now - self._told_at.get(url, -TELL_EVERY) < TELL_EVERY:
            return
        if len(self._told_at) >= MOST_TOLD:
            self._told_at.clear()
        self._told_at[url] = now
        log.warning(
            "instance %s: step %s has no outcome yet and is called again: %s",
            call.instance,
            call.step_key,
            reason,
        )
