"""What a statement's result looks like, by type, and how a failure is told."""

from __future__ import annotations

import json

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import play

PLAIN = [
    ("(-32768)::int2", -32768),
    ("(-9223372036854775807)::int8", -9223372036854775807),
    ("'-Infinity'::float4", None),
    ("'NaN'::float4", None),
    ("1e20::float8", 1e20),
    ("-0.5::float4", -0.5),
    ("null::numeric", None),
    ("false", False),
    ("null::bool", None),
    ("''::text", ""),
    ("E'a\\nb\\t\\u2603'", "a\nb\t☃"),
    ("'x'::varchar", "x"),
    ("'x'::name", "x"),
    ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date '0001-01-01'", "0001-01-01"),
    ("timestamp '2024-01-02 03:04:05'", "2024-01-02T03:04:05"),
    ("timestamptz '2024-01-02 03:04:05.000006+01'", "2024-01-02T02:04:05.000006+00:00"),
    ('\'[1, "a", null, {"b": []}]\'::jsonb', [1, "a", None, {"b": []}]),
    ("'\"text\"'::json", "text"),
    ("null::jsonb", None),
    ("pg_notify('x', '')", None),
    ("null", None),
]


@pytest.mark.parametrize(("expression", "value"), PLAIN)
async def test_values_as_json(actor: Connection, expression: str, value: object) -> None:
    played = await play(actor, f"$q$select {expression} as v$q$")
    assert played.value == {"rows": [{"v": value}], "row_count": 1}


@pytest.mark.ours("the extension does not keep the scale of a number")
async def test_a_number_keeps_its_digits_and_its_scale(actor: Connection) -> None:
    played = await play(actor, "'select 12345678901234567890.123450000::numeric(40, 9) as v'")
    assert played.cell == "12345678901234567890.123450000"


@pytest.mark.parametrize(
    ("expression", "type_name"),
    [
        ("'a'::corpus.mood", "mood"),
        ("row(1, 2)::corpus.pair", "pair"),
        ("int4range(1, 2)", "int4range"),
        ("'a'::tsvector", "tsvector"),
        ("b'101'", "bit"),
        ("array['{}'::jsonb]", "jsonb[]"),
        ("'08:00:2b:01:02:03'::macaddr", "macaddr"),
        ("timetz '12:00+01'", "timetz"),
        ("'(1,1),(0,0)'::box", "box"),
        ("pg_current_snapshot()", "pg_snapshot"),
    ],
)
async def test_other_types_fail_the_node_and_are_named(
    actor: Connection, expression: str, type_name: str
) -> None:
    await actor.execute("""
      drop type if exists corpus.mood, corpus.pair;
      create type corpus.mood as enum ('a'); create type corpus.pair as (a integer, b integer)""")
    played = await play(actor, f"$q$select 1 as a, {expression} as odd$q$")
    assert type_name in played.error.lower()
    assert "odd" in played.error
    cast = await play(actor, f"$q$select ({expression})::text as v$q$")
    assert isinstance(cast.cell, str)


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("select 1 as a where false", []),
        ("select i as a from generate_series(2, 1) i", []),
        (
            "values (1, 'x'), (2, null)",
            [{"column1": 1, "column2": "x"}, {"column1": 2, "column2": None}],
        ),
        ("select", [{}]),
        ("insert into corpus.shapes values (1), (2)", []),
        ("insert into corpus.shapes values (1), (2) returning n", [{"n": 1}, {"n": 2}]),
        ("update corpus.shapes set n = 2 where n = 1 returning n", []),
        ("delete from corpus.shapes returning n", []),
        ("create index on corpus.shapes (n)", []),
        ("set statement_timeout = 0", []),
        ("show server_encoding", [{"server_encoding": "UTF8"}]),
        ("table corpus.shapes", []),
    ],
)
async def test_rows_and_their_number(actor: Connection, statement: str, rows: object) -> None:
    await actor.execute(
        "drop table if exists corpus.shapes; create table corpus.shapes (n integer)"
    )
    played = await play(actor, f"$q${statement}$q$")
    assert played.rows == rows
    assert isinstance(rows, list)
    if statement.startswith(("select", "values", "show", "table")) or "returning" in statement:
        assert played.value["row_count"] == len(rows)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("select 1/0", "division by zero"),
        ("select * from corpus.nowhere", 'relation "corpus.nowhere" does not exist'),
        ("selec", 'syntax error at or near "selec"'),
        ("select 'x'::integer", 'invalid input syntax for type integer: "x"'),
        ("select set_config('role', 'postgres', false)", "permission denied"),
        ("do $d$ begin raise exception 'mine: %', 7; end $d$", "mine: 7"),
    ],
)
async def test_a_statements_error_is_the_servers_own(
    actor: Connection, statement: str, words: str
) -> None:
    played = await play(actor, f"df.seq('select 0', df.join($q${statement}$q$, 'select 1'))")
    assert words in played.error
    assert "SQL execution failed: error returned from database: " in played.error
    failed = [n for n in played.nodes if n["status"] == "failed"]
    assert {n["node_type"] for n in failed} == {"SQL", "JOIN", "THEN"}
    assert all(words in json.loads(n["result"]) for n in failed)


async def test_a_failed_node_holds_its_error_in_result(actor: Connection) -> None:
    played = await play(actor, "'select 1/0'")
    row = await actor.fetchrow("select * from df.nodes where instance_id = $1", played.id)
    assert row is not None
    assert (row["status"], row["error"]) == ("failed", None)
    assert json.loads(row["result"]) == played.error
    assert json.loads(row["status_details"]) == {"execution_id": f"{played.id}::1"}
    assert played.result is None


async def test_each_statement_is_a_transaction_of_its_own(actor: Connection) -> None:
    await actor.execute(
        "drop table if exists corpus.effects; create table corpus.effects (n integer)"
    )
    flow = """df.seq('insert into corpus.effects values (1)',
      df.seq('insert into corpus.effects values (2 / (select count(*) - 1 from corpus.effects))',
        'insert into corpus.effects values (3)'))"""
    assert "division by zero" in (await play(actor, flow)).error
    assert await actor.fetchval("select array_agg(n) from corpus.effects") == [1]
    one = await play(actor, "df.join('select txid_current() as t', 'select txid_current() as t')")
    first, second = (arm["rows"][0]["t"] for arm in one.value)
    assert first != second
