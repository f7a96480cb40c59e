"""docs/states.md names a test for each row; the tests exist."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "states.md"
NAMED = re.compile(r"`(test_\w+)`")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def test_every_test_that_the_page_names_exists() -> None:
    named = set(NAMED.findall(PAGE.read_text()))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in DEFINED.findall(path.read_text())
    }
    assert len(named) > 20
    assert named - defined == set()


def test_every_row_of_its_tables_names_a_test() -> None:
    lines = PAGE.read_text().splitlines()
    rows = [
        line
        for before, line in itertools.pairwise(lines)
        if line.startswith("| ") and before.startswith("| ") and not line.startswith("| ---")
    ]
    assert len(rows) > 20
    assert [row for row in rows if not NAMED.search(row)] == []
