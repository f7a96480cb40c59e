"""A setting that is spelt wrong is not passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys

from pgflows.cli import misspelt


def test_near_misses_name_the_setting_that_was_meant() -> None:
    found = dict(misspelt(["PGFLOWS_APIKEYS", "PGFLOWS_DNS", "PGFLOWS_RETENTION_DAY"]))
    assert found == {
        "PGFLOWS_APIKEYS": "PGFLOWS_API_KEYS",
        "PGFLOWS_DNS": "PGFLOWS_DSN",
        "PGFLOWS_RETENTION_DAY": "PGFLOWS_RETENTION_DAYS",
    }


def test_settings_and_what_others_put_there_are_left_alone() -> None:
    others = ["PGFLOWS_DSN", "PGFLOWS_URL", "PGFLOWS_SERVICE_HOST", "PGFLOWS_TEST_DSN", "PATH"]
    assert list(misspelt(others)) == []


def test_a_command_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgflows", "check"],
        env=os.environ | {"PGFLOWS_APIKEYS": "secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PGFLOWS_APIKEYS is not a setting" in done.stderr
    assert "secret" not in done.stderr
