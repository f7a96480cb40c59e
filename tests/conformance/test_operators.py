"""Operators and functions build the same graphs; operators bind from left to right, all alike."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pgflows.database.connections import Connection


@pytest.mark.parametrize(
    ("operators", "functions"),
    [
        ("'a' ~> 'b'", "df.seq('a', 'b')"),
        ("'a' & 'b'", "df.join('a', 'b')"),
        ("'a' | 'b'", "df.race('a', 'b')"),
        ("'a' |=> 'n'", "df.as('a', 'n')"),
        ("'a' ?> 'b' !> 'c'", "df.if('a', 'b', 'c')"),
        ("@> 'a'", "df.loop('a')"),
        ("'a' ~> 'b' ~> 'c'", "df.seq(df.seq('a', 'b'), 'c')"),
        ("'a' ~> ('b' ~> 'c')", "df.seq('a', df.seq('b', 'c'))"),
        ("'a' ~> 'b' & 'c'", "df.join(df.seq('a', 'b'), 'c')"),
        ("'a' & 'b' ~> 'c'", "df.seq(df.join('a', 'b'), 'c')"),
        ("'a' | 'b' & 'c'", "df.join(df.race('a', 'b'), 'c')"),
        ("'a' & 'b' | 'c'", "df.race(df.join('a', 'b'), 'c')"),
        ("'a' & 'b' & 'c'", "df.join(df.join('a', 'b'), 'c')"),
        ("'a' ~> 'b' |=> 'n'", "df.as(df.seq('a', 'b'), 'n')"),
        ("'a' |=> 'n' ~> 'b'", "df.seq(df.as('a', 'n'), 'b')"),
        ("'a' ~> ('b' |=> 'n')", "df.seq('a', df.as('b', 'n'))"),
        ("'a' & 'b' |=> 'n'", "df.as(df.join('a', 'b'), 'n')"),
        ("'a' ~> 'b' ?> 'c' !> 'd'", "df.if(df.seq('a', 'b'), 'c', 'd')"),
        ("'a' ?> 'b' !> 'c' ~> 'd'", "df.seq(df.if('a', 'b', 'c'), 'd')"),
        ("'a' ?> 'b' !> 'c' |=> 'n'", "df.as(df.if('a', 'b', 'c'), 'n')"),
        ("'a' ?> ('b' ~> 'c') !> ('d' & 'e')", "df.if('a', df.seq('b', 'c'), df.join('d', 'e'))"),
        ("'a' ?> ('b' ?> 'c' !> 'd') !> 'e'", "df.if('a', df.if('b', 'c', 'd'), 'e')"),
        ("('a' |=> 'n') ?> 'b' !> 'c'", "df.if(df.as('a', 'n'), 'b', 'c')"),
        ("@> ('a' ~> 'b')", "df.loop(df.seq('a', 'b'))"),
        ("@> 'a' ~> 'b'", "df.seq(df.loop('a'), 'b')"),
        ("@> 'a' |=> 'n'", "df.as(df.loop('a'), 'n')"),
        ("'a' ~> @> 'b'", "df.seq('a', df.loop('b'))"),
        (
            "'a' ~> df.sleep(1) & df.http('{u}')",
            "df.join(df.seq('a', df.sleep(1)), df.http('{u}'))",
        ),
        (
            "df.break('1') | df.wait_for_signal('s')",
            "df.race(df.break('1'), df.wait_for_signal('s'))",
        ),
    ],
)
async def test_they_build_the_same(actor: Connection, operators: str, functions: str) -> None:
    one, other = await actor.fetchrow(f"select {operators}, {functions}") or ("", "")
    assert json.loads(one) == json.loads(other)


async def test_building_touches_no_table(actor: Connection) -> None:
    async with actor.transaction(readonly=True):
        graph = await actor.fetchval(
            "select 'a' ~> df.join3('b', df.sleep(1), @> df.break()) |=> 'n'"
        )
    assert json.loads(graph)["result_name"] == "n"


@pytest.mark.parametrize(
    ("call", "node_type"),
    [
        ("df.sql('x')", "SQL"),
        ("df.seq('x', 'y')", "THEN"),
        ("df.join('x', 'y')", "JOIN"),
        ("df.join3('x', 'y', 'z')", "JOIN"),
        ("df.race('x', 'y')", "RACE"),
        ("df.if('x', 'y', 'z')", "IF"),
        ("df.if_rows('x', 'y', 'z')", "IF"),
        ("df.loop('x')", "LOOP"),
        ("df.break()", "BREAK"),
        ("df.sleep(0)", "SLEEP"),
        ("df.sleep(9223372036854775807)", "SLEEP"),
        ("df.wait_for_schedule('0 0 * * SUN')", "WAIT_SCHEDULE"),
        ("df.wait_for_signal('x')", "SIGNAL"),
        ("df.http('HTTPS://h')", "HTTP"),
        ("df.http('{scheme}://h')", "HTTP"),
        ("df.http('http://h/$q.path', 'delete', timeout_seconds => 1)", "HTTP"),
        (
            'df.http_multipart(\'{u}\', parts => \'[{"name": "n", "data_b64": ""}]\')',
            "HTTP_MULTIPART",
        ),
    ],
)
async def test_each_constructor_gives_one_envelope(
    actor: Connection, call: str, node_type: str
) -> None:
    assert json.loads(await actor.fetchval(f"select {call}"))["node_type"] == node_type


@pytest.mark.parametrize(
    "call",
    [
        "df.as('x', 'a b')",
        "df.as('x', '$a')",
        "df.as('x', 'ä')",
        "df.http('file:///etc/passwd')",
        "df.http('//h/p')",
        "df.http('')",
        "df.http('http://h', 'HEAD')",
        "df.http('http://h', '')",
        "df.http('http://h', timeout_seconds => -1)",
        'df.http_multipart(\'http://h\', \'DELETE\', \'[{"name": "n", "data_b64": ""}]\')',
        "df.http_multipart('http://h')",
        "df.http_multipart('http://h', 'POST', '{}')",
        'df.http_multipart(\'gopher://h\', \'POST\', \'[{"name": "n", "data_b64": ""}]\')',
        "df.wait_for_schedule('')",
        "df.wait_for_schedule('a b c d e')",
        "df.wait_for_signal('s', 0)",
        "df.sleep(-9223372036854775808)",
    ],
)
async def test_what_cannot_be_run_is_refused_when_it_is_built(actor: Connection, call: str) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await actor.fetchval(f"select {call}")


@pytest.mark.parametrize(
    "envelope",
    [
        '{"node_type": "SQL", "query": "select 1"}',
        '\n {"query": "select 1", "node_type": "SQL"}\n',
        '{"node_type":"THEN","left_node":{"node_type":"SQL","query":"a"},"right_node":'
        '{"node_type":"SLEEP","query":"1"}}',
    ],
)
async def test_an_envelope_is_a_node_and_other_text_is_wrapped(
    actor: Connection, envelope: str
) -> None:
    node = json.loads(await actor.fetchval("select df.seq($1, '{\"a\": 1}')", envelope))
    assert node["left_node"] == json.loads(envelope)
    assert node["right_node"] == {"node_type": "SQL", "query": '{"a": 1}'}


@pytest.mark.ours("where the extension keeps its operators is known: pg_catalog")
async def test_the_functions_need_no_search_path(actor: Connection) -> None:
    await actor.execute("set search_path = ''")
    assert await actor.fetchval("select df.seq('a', df.as(df.loop('b'), 'n'))")


@pytest.mark.extension("our operators live in public")
async def test_the_operators_need_no_search_path(actor: Connection) -> None:
    await actor.execute("set search_path = ''")
    assert await actor.fetchval("select 'a' ~> 'b'")
