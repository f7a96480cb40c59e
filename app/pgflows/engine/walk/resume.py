"""What a run needs to go on from where an earlier life of it was interrupted.

Deadlines, loop counters and winners of races, by section and key. Each snapshot has a number: those
of several branches may reach the database in any order, and it keeps the highest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pgflows.engine.write.checkpoint import State

Change = tuple[str, str, Any]  # section, key, value (None: to be forgotten)
NUMBER = "no"


class Resume:
    """The resume state of one run in memory."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._sections: dict[str, dict[str, Any]] = {
            name: dict(section) for name, section in state.items() if name != NUMBER
        }
        self._number: int = state.get(NUMBER, 0)

    def recall(self, section: str, key: str) -> Any:
        """What was remembered, in this life of the run or an earlier one; else None."""
        return self._sections.get(section, {}).get(key)

    def keys(self) -> list[tuple[str, str]]:
        """Section and key of all that is remembered."""
        return [(section, key) for section, held in self._sections.items() for key in held]

    def apply(self, changes: list[Change]) -> State | None:
        """Takes the changes in and empties the list; the snapshot is to be made durable."""
        if not changes:
            return None
        for section, key, value in changes:
            held = self._sections.setdefault(section, {})
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        changes.clear()
        return self.snapshot()

    def snapshot(self) -> State:
        self._number += 1
        kept = {name: section for name, section in self._sections.items() if section}
        return State(self._number, json.dumps(kept | {NUMBER: self._number}))
