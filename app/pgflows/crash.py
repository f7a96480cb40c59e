"""Crash points: named places where a process under test is killed, as `kill -9` would.

`PGFLOWS_CRASH_AT=name` kills this process the first time it comes to the point `name`, and
`PGFLOWS_CRASH_AT=name:3` the third time. Unset, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("PGFLOWS_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def crash_point(name: str) -> None:
    """Dies here if the environment says so."""
    if not _name or name != _name:
        return
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
