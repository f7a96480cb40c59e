"""A crash point kills the process that comes to it, if the environment names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
from pgflows.crash import crash_point
for n in range(3):
    crash_point("here")
    print(n, flush=True)
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "printed", "code"),
    [
        ("here", 0, -signal.SIGKILL),
        ("here:3", 2, -signal.SIGKILL),
        ("elsewhere", 3, 0),
        ("", 3, 0),
    ],
)
def test_a_process_dies_at_the_point_that_is_named(name: str, printed: int, code: int) -> None:
    done = run(PGFLOWS_CRASH_AT=name)
    assert (len(done.stdout.splitlines()), done.returncode) == (printed, code)
