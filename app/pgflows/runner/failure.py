"""What went wrong with an attempt, as the ledger stores it and callers are told."""

from __future__ import annotations

import json
import math
import traceback
from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError

from pgflows.database.storable import cut
from pgflows.errors import NonRetryableError, RetryAfter

LONGEST_MESSAGE = 10_000  # characters
LONGEST_TRACEBACK = 50_000  # characters


@dataclass(frozen=True, slots=True)
class Failure:
    """An error by its type and message; the rest is for the ledger and the retry policy."""

    type: str
    message: str
    retryable: bool = False
    traceback: str | None = None
    retry_after: float | None = None  # seconds, if the step asked for a delay

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """What a step raised, whatever it was."""
        wait = error.seconds if isinstance(error, RetryAfter) else None
        if wait is not None and not (math.isfinite(wait) and wait >= 0):
            wait = None
        try:
            message, told = str(error), "".join(traceback.format_exception(error))
        except BaseException:  # an error whose own text cannot be made
            message, told = "(the error has no text)", ""
        return cls(
            type(error).__name__,
            cut(message, LONGEST_MESSAGE),
            retryable=not isinstance(error, NonRetryableError),
            traceback=cut(told, LONGEST_TRACEBACK),
            retry_after=wait,
        )

    @classmethod
    def of_input(cls, error: ValidationError) -> Self:
        """What is wrong with an input. It stays wrong, so the step is not tried again."""
        faults = [f"{'.'.join(map(str, e['loc'])) or 'input'}: {e['msg']}" for e in error.errors()]
        return cls("InvalidInput", cut("; ".join(faults), LONGEST_MESSAGE))

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """The failure that the ledger recorded."""
        found = json.loads(text or "{}")
        return cls(str(found.get("type")), str(found.get("message")))

    def to_json(self) -> str:
        return json.dumps({"type": self.type, "message": self.message})
