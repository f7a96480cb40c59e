"""Where we differ from the recording on purpose: the fields of a case that are ours.

The reasons are in docs/differences.md.
"""

from __future__ import annotations

from typing import Any

DIFFERENCES: dict[str, dict[str, Any]] = {}
