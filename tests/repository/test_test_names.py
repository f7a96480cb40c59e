"""The names of the tests themselves."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_of_the_suite_has_a_name_of_its_own() -> None:
    names = Counter(
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if node.name.startswith("test_")
    )
    assert [name for name, count in names.items() if count > 1] == []
