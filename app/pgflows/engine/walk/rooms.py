"""The parts of an engine that the leaves of a run work with."""

from __future__ import annotations

from dataclasses import dataclass

from pgflows.engine.call.calls import Calls
from pgflows.engine.clock import Clock
from pgflows.engine.mail import Mail
from pgflows.engine.sql.statements import Statements
from pgflows.engine.write.batches import Batches
from pgflows.engine.write.checkpoint import Checkpointer


@dataclass(frozen=True)
class Rooms:
    """One set for each session of an engine; all of its runs share it."""

    checkpointer: Checkpointer
    batches: Batches
    statements: Statements
    calls: Calls
    mail: Mail
    clock: Clock
