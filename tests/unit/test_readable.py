"""JSON texts that Python's readers refuse, made readable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_core import from_json

from pgflows.readable import MAX_DEPTH, readable

NINES = "9" * 5000
DEEP_LIST = "[" * 3000 + "1" + "]" * 3000
DEEP_OBJECT = '{"k": ' * 3000 + '"]}"' + "}" * 3000


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text",
    [
        "null", "0", "-1.5e3", '"a\\\\"', '"[{9\\"]"', "[]", '{"a": [1, {"b": "]"}]}',
        "9" * 300, nested(MAX_DEPTH), f'{{"a": "{NINES}"}}', json.dumps({"ä𝄞": DEEP_LIST}),
    ],
)  # fmt: skip
def test_what_python_reads_stays_as_it_is(text: str) -> None:
    assert readable(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (NINES, NINES),
        (f"-{NINES}.5", f"-{NINES}.5"),
        (f'{{"a": [1, {NINES}], "b": 2}}', {"a": [1, NINES], "b": 2}),
        (f"[{NINES}, {NINES}]", [NINES, NINES]),
        ("1" * 400_001, "1" * 400_001),
    ],
)
def test_a_number_of_thousands_of_digits_becomes_its_text(text: str, value: Any) -> None:
    assert json.loads(readable(text)) == value
    assert from_json(readable(text)) == value


@pytest.mark.parametrize("deep", [DEEP_LIST, DEEP_OBJECT, f"[{DEEP_LIST}, {DEEP_OBJECT}]"])
def test_what_is_nested_too_deep_becomes_its_text(deep: str) -> None:
    found = readable(f'{{"a": 1, "b": {deep}, "c": [2]}}')
    value = from_json(found)
    assert (value["a"], value["c"]) == (1, [2])
    assert json.loads(found) == value
