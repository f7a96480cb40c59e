"""SQL lives in sql/. Python calls a function or reads; it holds no statement that changes data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "app" / "pgflows"
CHANGES = re.compile(
    r"\s*(insert into|update \w+ set|delete from|merge into|truncate|do \$|"
    r"(create|alter|drop) (table|schema|role|database|function|index|type|view|trigger))\b",
    re.IGNORECASE,
)
BEFORE_THERE_ARE_FUNCTIONS = {
    "database/migrations/apply.py": "makes the schema df and keeps the record of migrations",
    "database/migrations/rights.py": "tells a DBA what to run",
    "database/migrations/run_role.py": "makes the role and keeps its password",
    "database/migrations/scripts.py": "makes the record of migrations",
    "database/embedded/server.py": "makes the owner and its database",
}


def statements(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_only_what_comes_before_the_functions_changes_data_by_itself() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(CHANGES.match(text) for text in statements(path))
    }
    assert found == set(BEFORE_THERE_ARE_FUNCTIONS)
