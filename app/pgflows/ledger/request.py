"""What is asked of the one step path, whoever asks: a push, a queue message or a replayed run."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SignedRun:
    """The run that a verified push names: the orchestrator's id of it, and the key that signed."""

    df_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step of a run, with its input as JSON. `seq` is the node of the run that asks for it."""

    instance: UUID | SignedRun
    step_key: str
    step: str
    seq: int
    body: bytes

    @property
    def df_id(self) -> str | None:
        """The orchestrator's id of the run, if an orchestrator asks."""
        return self.instance.df_id if isinstance(self.instance, SignedRun) else None
