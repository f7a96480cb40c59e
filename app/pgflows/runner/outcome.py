"""What the one step path answers, whoever asked. How it travels is the caller's affair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pgflows.runner.failure import Failure


@dataclass(frozen=True, slots=True)
class Completed:
    """The step has a result, as JSON."""

    output: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The step failed for good."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt is under way, here or elsewhere, and did not end before the deadline."""


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing runs now; ask again after `seconds`."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The instance was cancelled, or is gone."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The run has not asked for this step, or the answer was due long ago."""


Outcome: TypeAlias = Completed | Failed | Running | Later | Cancelled | Unknown
