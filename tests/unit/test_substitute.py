"""Substitution and conditions, as the contract's §3 and §4 say."""

from __future__ import annotations

import pytest

from pgflows.engine.node.results import NodeFailed, Result, storable, truthy
from pgflows.engine.node.substitute import in_field, in_sql, quote

ROW = Result('{"rows":[{"v":5,"w":"it\'s","n":null,"j":{"k":[1]}}],"row_count":1}')
EMPTY = Result('{"rows":[],"row_count":0}')
FLAT = Result('{"status":200,"body":"b","ok":true}')
ROWS = Result('{"rows":[{"zeta":1,"t":"r1"},{"zeta":2,"t":null}],"row_count":2}')
CAPTURES = {"a": ROW, "none": EMPTY, "resp": FLAT, "rows": ROWS, "ab": Result('{"rows":[{"x":2}]}')}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("select $a", "select 5"),
        ("select $a.w", "select 'it''s'"),
        ("select $a.j", "select '{\"k\":[1]}'"),
        ("select $a.n?", "select NULL"),
        ("select $none?", "select NULL"),
        ("select $ab, $a", "select 2, 5"),
        ("select $abc", "select $abc"),
        ("select $a.nope, $a.nope?", "select $a.nope, $a.nope?"),
        ("select $a.v.w", "select 5.w"),
        ("select $a-1", "select 5-1"),
        ("select $$a", "select $5"),
        ("select '$a'", "select '5'"),
        ("select $resp.status, $resp.ok", "select 200, true"),
        ("select $resp.nope, $resp.nope?", "select $resp.nope, $resp.nope?"),
        ("select $resp", 'select \'{"status":200,"body":"b","ok":true}\''),
        ("from $rows.*", 'from (VALUES (1, \'r1\'), (2, NULL)) AS "rows"("zeta","t")'),
        ("from $none.*", 'from (SELECT NULL WHERE false) AS "none"'),
        ("{known} {unknown} { known }", "x {unknown} { known }"),
        ("{capture}", "5"),
    ],
)
def test_sql_text_gets_quoted_literals(text: str, filled: str) -> None:
    assert in_sql(text, {"known": "x", "capture": "$a"}, CAPTURES) == filled


def test_inserted_text_is_not_scanned_again() -> None:
    captures = {"a": Result('{"rows":[{"t":"$b {known}"}]}'), "b": Result('{"rows":[{"x":9}]}')}
    assert in_sql("$a", {"known": "x"}, captures) == "'$b {known}'"
    assert in_sql("{known}", {"known": "{other}", "other": "y"}, {}) == "{other}"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$a.w|$a.v|$a.j", 'it\'s|5|{"k":[1]}'),
        ("$a.n?", "NULL"),
        ("$resp.nope?|$a.nope?", "$resp.nope?|$a.nope?"),
        ("$rows.*", '[{"zeta":1,"t":"r1"},{"zeta":2,"t":null}]'),
        ("$unset", "$unset"),
    ],
)
def test_http_fields_get_raw_text(text: str, filled: str) -> None:
    assert in_field(text, {}, CAPTURES) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$a.n", "$a.n is NULL"),
        ("$none", "$none has no rows — query returned zero results"),
        ("$a.nope", "$a.nope: result has no field 'nope' (available: v, w, n, j)"),
    ],
)
def test_what_is_missing_fails_the_node(text: str, message: str) -> None:
    with pytest.raises(NodeFailed) as failed:
        in_field(text, {}, CAPTURES)
    assert failed.value.message == message


def test_a_null_first_column_fails_an_sql_node() -> None:
    with pytest.raises(NodeFailed, match="first column of first row is NULL"):
        in_sql("select $x", {}, {"x": Result('{"rows":[{"a":null}]}')})


@pytest.mark.parametrize(
    "value", ["", "f", "no", "NO", "false", "0", "0.0", " ", 0, 0.0, None, False, [], {}]
)
def test_these_are_false(value: object) -> None:
    assert not truthy(value)


@pytest.mark.parametrize(
    "value", ["n", "off", "x", "t", "1e-9", 1, -1, 0.5, True, [0], {"a": None}]
)
def test_these_are_true(value: object) -> None:
    assert truthy(value)


def test_a_condition_is_the_first_column_of_the_first_row() -> None:
    assert Result('{"rows":[{"zeta":1,"alpha":0}]}').truth()
    assert not EMPTY.truth()
    assert FLAT.truth()


@pytest.mark.parametrize("text", ["'", "\\", "it''s", "$a", "{x}", "\u2603", "\U0001f600"])
def test_a_quoted_literal_doubles_quotes_only(text: str) -> None:
    assert quote(text) == "'" + text.replace("'", "''") + "'"


def test_order_is_kept_only_where_jsonb_would_lose_it() -> None:
    assert ROWS.ordered
    assert not Result('{"c":true,"seq":1,"keys":[],"bodies":{"a":1,"bb":2}}').ordered
    assert Result('{"a":[{"bb":1,"a":2}]}').ordered


@pytest.mark.parametrize("text", ['"a\\u0000b"', '{"a\\u0000":1}', '["\ud800"]'])
def test_what_jsonb_cannot_hold_fails_the_node(text: str) -> None:
    with pytest.raises(NodeFailed):
        storable(text)


def test_an_escaped_backslash_before_u0000_is_stored() -> None:
    assert storable('"\\\\u0000"') == '"\\\\u0000"'
