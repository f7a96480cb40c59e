"""Variables in texts: `{name}` first, raw, then captures, quoted in SQL and raw over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgflows.database.connections import Connection
from tests.conformance.conftest import Stage
from tests.conformance.stage import Played, play

ROW = """select 5 as n, 'it''s'::text as t, true as b, 2.5::float8 as f, '[1,"a"]'::jsonb as a,
  '{"k":"it''s"}'::jsonb as o, '$x ' || chr(123) || 'v}' as raw, null::text as nul"""


async def after(conn: Connection, capture: str, text: str) -> Played:
    """A statement whose result is called x, and the text that follows it."""
    flow = f"df.seq(df.as($q${capture}$q$, 'x'), df.sql($q${text}$q$))"
    return await play(conn, flow)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("select $x.n + 1", 6),
        ("select pg_typeof($x.n)::text", "integer"),
        ("select pg_typeof($x.b)::text", "boolean"),
        ("select not $x.b", False),
        ("select ($x.f * 2)::float8", 5.0),
        ("select $x.t", "it's"),
        ("select ($x.a::jsonb) ->> 1", "a"),
        ("select $x.o::jsonb ->> 'k'", "it's"),
        ("select $x.o", '{"k":"it\'s"}'),
        ("select $x.raw", "$x {v}"),
        ("select $x || '$x.n'", "55"),
        ("select coalesce($x.nul?, 'fallback')", "fallback"),
        ("select $x.n? + 1", 6),
        ("select count(*) from $x.* where x.n = 5", 1),
        ("select x.nul is null from $x.*", True),
        ("select $xy", None),
        ("select '$ x $1 $'", "$ x $1 $"),
        ("select $x.n*2", 10),
        ("select array[$x.n,$x.n]::text", "{5,5}"),
    ],
)
async def test_captures_in_sql(actor: Connection, text: str, value: Any) -> None:
    played = await after(actor, ROW, text)
    if value is None:
        assert "SQL execution failed" in played.error
    else:
        assert played.cell == value


@pytest.mark.parametrize(
    ("capture", "text"),
    [
        ("select 1 as n where false", "select $x"),
        ("select 1 as n where false", "select $x.n"),
        ("select null::int as n", "select $x"),
        ("select null::int as n", "select $x.n"),
    ],
)
async def test_no_rows_and_null_fail_the_node_that_asks(
    actor: Connection, capture: str, text: str
) -> None:
    played = await after(actor, capture, text)
    name = text.removeprefix("select ")
    asked = name.removesuffix(".n") if "false" in capture else name
    assert f"{asked} has no rows" in played.error or f"{asked} is NULL" in played.error
    assert played.node(text)["status"] == "failed"
    assert played.node(capture)["status"] == "completed"
    optional = await after(actor, capture, f"{text}? is null")
    assert optional.cell is True


async def test_a_result_without_rows_is_its_whole_text_or_its_keys(actor: Connection) -> None:
    flow = "df.seq(df.as({}, 'x'), 'select $x::jsonb as whole, $x.{} as part')"
    signal = await play(actor, flow.format("df.wait_for_signal('s', 1)", "timed_out"))
    assert signal.rows[0]["whole"]["signal_name"] == "s"
    assert signal.rows[0]["part"] is True
    value = await play(actor, flow.format('df.loop(df.break(\'{"k": "v"}\'))', "k"))
    assert value.rows == [{"whole": {"k": "v"}, "part": "v"}]


@pytest.mark.parametrize("node", ["df.join('select 1 as a', 'select 2')", "df.loop(df.break('t'))"])
async def test_asking_for_a_key_of_what_has_none_fails(actor: Connection, node: str) -> None:
    for text in ("select ''$x.a'' as t", "select $x.a? as t"):
        played = await play(actor, f"df.seq(df.as({node}, 'x'), '{text}')")
        assert "neither a row set nor a JSON object" in played.error


async def test_all_rows_in_the_order_of_their_columns(actor: Connection) -> None:
    rows = "select i as zeta, 'r' || i as alpha, i > 1 as \"a b\" from generate_series(1, 3) i"
    played = await after(actor, rows, 'select zeta, alpha, "a b" from $x.* order by 1 desc')
    assert played.rows == [
        {"zeta": 3, "alpha": "r3", "a b": True},
        {"zeta": 2, "alpha": "r2", "a b": True},
        {"zeta": 1, "alpha": "r1", "a b": False},
    ]


async def test_ten_thousand_rows_go_into_a_text_and_no_more(actor: Connection) -> None:
    series = "select i from generate_series(1, {}) i"
    most = await after(actor, series.format(10_000), "select count(*), sum(i) from $x.*")
    assert most.rows == [{"count": 10_000, "sum": 50_005_000}]
    more = await after(actor, series.format(10_001), "select count(*) from $x.*")
    assert "10000" in more.error.replace(",", "")


async def test_the_longest_name_is_meant_and_unknown_ones_stay(actor: Connection) -> None:
    flow = """df.seq(df.as('select 1', 'a'), df.seq(df.as('select 2', 'ab'),
      df.seq(df.as('select 3', 'a_b'),
        $q$select $ab as p, $a as q, $a_b as r, '$abc' as s, '$b' as t$q$)))"""
    played = await play(actor, flow)
    assert list(played.rows[0].values()) == [2, 1, 3, "$abc", "$b"]


async def test_vars_are_raw_text_and_are_not_scanned_again(actor: Connection) -> None:
    for name, value in (("v", "1 + 1"), ("w", "{v}"), ("c", "$x.n"), ("table", "pg_class")):
        await actor.fetchval("select df.setvar($1, $2)", name, value)
    text = """select {v} as v, '{w}' as w, {c} as c, (select count(*) > 0 from {table}) as t,
      '{sys_instance_id}' as i, '{sys_label}' as l, '{none}{ v }{}{' as u"""
    flow = f"df.seq(df.as('select 7 as n', 'x'), df.sql($q${text}$q$))"
    played = await play(actor, flow, "a label")
    await actor.fetchval("select df.clearvars()")
    assert played.rows == [
        {
            "v": 2,
            "w": "{v}",
            "c": 7,
            "t": True,
            "u": "{none}{ v }{}{",
            "i": played.id,
            "l": "a label",
        }
    ]


async def test_a_captured_text_is_not_scanned_for_vars(actor: Connection) -> None:
    await actor.fetchval("select df.setvar('v', 'no')")
    played = await after(actor, ROW, "select $x.raw as r, '{v}' as v")
    await actor.fetchval("select df.clearvars()")
    assert played.rows == [{"r": "$x {v}", "v": "no"}]


async def test_the_value_of_a_break_is_not_filled_in(actor: Connection) -> None:
    await actor.fetchval("select df.setvar('v', '1')")
    flow = "df.seq(df.as('select 7', 'x'), df.loop(df.break('{v} $x')))"
    played = await play(actor, flow)
    await actor.fetchval("select df.clearvars()")
    assert played.value == "{v} $x"


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("$x.t and $x.n", "it's and 5"),
        ("$x.b $x.f", "true 2.5"),
        ("$x.a", '[1,"a"]'),
        ("$x.o", '{"k":"it\'s"}'),
        ("$x", "5"),
        ("$x.nul?", "NULL"),
        ("$x.raw", "$x {v}"),
        ("$unknown {unknown}", "$unknown {unknown}"),
        ("{v}: $x.n", "raw: 5"),
    ],
)
async def test_captures_in_http_fields_are_raw(
    actor: Connection, stage: Stage, field: str, sent: str
) -> None:
    await actor.fetchval("select df.setvar('v', 'raw')")
    headers = f"jsonb_build_object('x-f', $q${field}$q$)"
    call = f"df.http('{stage.peer}/echo', 'POST', $q${field}$q$, {headers})"
    played = await play(actor, f"df.seq(df.as($q${ROW}$q$, 'x'), {call})")
    await actor.fetchval("select df.clearvars()")
    heard = json.loads(played.value["body"])
    assert (heard["body"], heard["headers"]["x-f"]) == (sent, sent)


async def test_what_an_http_field_lacks_fails_its_node(actor: Connection, stage: Stage) -> None:
    for field in ("$x.none", "$x.nul"):
        call = f"df.http('{stage.peer}/echo', 'POST', '{field}')"
        played = await play(actor, f"df.seq(df.as($q${ROW}$q$, 'x'), {call})")
        assert field in played.error
        assert played.node("HTTP")["status"] == "failed"
