"""Quoting, checked by PostgreSQL's own parser; other tests send the texts through a server."""

from __future__ import annotations

import json
from typing import Any

import pglast
import pytest

from pgflows.flow.graph import quote

TEXTS = [
    "plain",
    "it's",
    "'; drop table x; --",
    "a\\b",
    "\\'",
    "\\x7b",
    "{sys_label}",
    "{sys_instance_id}",
    "$e.seq",
    "$r1 and $$",
    "a\nb\tc\r\n",
    "\x01\x7f\x80\x9f",
    "Zürich 東京 𝄞",
    "\u202e right to left, \u2028 separator, \ufeff",
    "",
    "".join(map(chr, range(1, 256))),
]


def constant(sql: str) -> str:
    """The value of a string literal, as PostgreSQL's scanner reads it."""
    tree: Any = pglast.parse_sql(f"select {sql}")
    value = tree[0].stmt.targetList[0].val
    while isinstance(value, pglast.ast.TypeCast):
        value = value.arg
    return str(value.val.sval)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_means_itself_and_shows_nothing_to_substitute(text: str) -> None:
    sql = quote.text(text)
    assert constant(sql) == text
    assert "{" not in sql
    assert "$" not in sql


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_within_a_nodes_text_means_itself(text: str) -> None:
    inner = constant(quote.node_text(f"select {quote.text(text)}"))
    assert constant(inner.removeprefix("select ")) == text


@pytest.mark.parametrize(
    "value",
    [
        *TEXTS,
        None,
        True,
        0,
        -5,
        10**30,
        0.1,
        1e300,
        5e-324,
        {"a": [1, {"b": None}], "'{$": "}"},
        [],
        {},
    ],
)
def test_a_json_literal_means_itself(value: Any) -> None:
    sql = quote.json_literal(value)
    assert sql.endswith("::jsonb")
    assert json.loads(constant(sql)) == value
    assert "{" not in sql
    assert "$" not in sql


def test_a_nodes_own_text_keeps_what_is_to_be_substituted() -> None:
    assert quote.node_text("'{sys_instance_id}', $e.seq") == "'''{sys_instance_id}'', $e.seq'"


def test_what_no_text_of_postgresql_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        quote.text("a\x00b")
    with pytest.raises(ValueError, match="Out of range"):
        quote.json_literal(float("nan"))
