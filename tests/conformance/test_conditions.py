"""IF and if_rows: what decides, what is run and what is left out."""

from __future__ import annotations

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import play

YES_NO = "'select ''yes'' as r', 'select ''no'' as r'"


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ("select true as a, false as b", "yes"),
        ("select false as a, true as b", "no"),
        ("select false union all select true", "no"),
        ("select 'FALSE'", "no"),
        ("select '0.00'", "no"),
        ("select '-0'", "no"),
        ("select '1'", "yes"),
        ("select 't'", "yes"),
        ("select 'null'", "yes"),
        ("select 1e-9::float8", "yes"),
        ("select '{\"a\": false}'::jsonb", "yes"),
        ("select 'true'::jsonb", "yes"),
        ("select '0'::jsonb", "no"),
        ("select date '2024-01-01'", "yes"),
        ("select pg_sleep(0)", "no"),
        ("insert into corpus.conditions values (1)", "no"),
        ("insert into corpus.conditions values (1) returning true", "yes"),
    ],
)
async def test_what_is_true(actor: Connection, condition: str, answer: str) -> None:
    await actor.execute("create table if not exists corpus.conditions (n integer)")
    assert (await play(actor, f"df.if($q${condition}$q$, {YES_NO})")).cell == answer


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ("df.sleep(0)", "yes"),
        ("df.join('select false', 'select false')", "yes"),
        ("df.race('select false', df.sleep(600))", "no"),
        ("df.loop(df.break('false'))", "no"),
        ("df.loop(df.break('[]'))", "no"),
        ("df.loop(df.break('no'))", "no"),
        ("df.loop(df.break())", "no"),
        ("df.loop(df.break('{\"a\": 0}'))", "yes"),
        ("df.if('select false', 'select 1', 'select 0')", "no"),
    ],
)
async def test_any_node_can_be_a_condition(actor: Connection, condition: str, answer: str) -> None:
    assert (await play(actor, f"df.if({condition}, {YES_NO})")).cell == answer


async def test_the_result_is_the_taken_branchs(actor: Connection) -> None:
    branches = "df.if('select false', 'select 1 as n', 'select 2 as n')"
    played = await play(actor, f"df.seq(df.as({branches}, 'i'), 'select $i as n')")
    assert played.cell == 2
    assert played.node("IF")["result"] == '{"rows": [{"n": 2}], "row_count": 1}'
    assert played.seen["select 1 as n"] == "skipped"


@pytest.mark.parametrize(
    ("capture", "answer"),
    [
        ("select 0 as n", "yes"),
        ("select null::int as n", "yes"),
        ("select 1 as n where false", "no"),
        ("create table if not exists corpus.made (n int)", "no"),
    ],
)
async def test_rows_are_counted_and_not_looked_at(
    actor: Connection, capture: str, answer: str
) -> None:
    played = await play(actor, f"df.seq(df.as('{capture}', 'c'), df.if_rows('c', {YES_NO}))")
    assert played.cell == answer
    assert len(played.nodes) == 5


async def test_if_rows_fails_where_the_capture_is_no_result_of_a_statement(
    actor: Connection,
) -> None:
    flow = "df.seq(df.as(df.join('select 1', 'select 2'), 'c'), df.if_rows('c', {}))"
    error = (await play(actor, flow.format(YES_NO))).error
    assert error == "df.if_rows: result 'c' is not a SQL result (missing row_count)"


async def test_a_failed_condition_skips_both_branches(actor: Connection) -> None:
    played = await play(actor, "df.if('select 1/0', 'select 1', 'select 2')")
    assert "division by zero" in played.error
    assert played.seen["select 1"] == played.seen["select 2"] == "skipped"
    assert played.node("IF")["status"] == "failed"


async def test_a_branch_of_several_nodes_that_is_not_taken_is_skipped_as_a_whole(
    actor: Connection,
) -> None:
    other = "df.seq('select 1', df.join('select 2', df.loop('select 3', 'select 4')))"
    played = await play(actor, f"df.if('select true', 'select 5', {other})")
    skipped = {
        n["query"] or n["node_type"] for n in played.nodes if n["inferred_status"] == "skipped"
    }
    assert {"select 1", "select 2", "select 3", "select 4", "THEN", "JOIN"} <= skipped
    root = played.node("IF")["node_id"]
    assert {
        n["inferred_status_from_ancestor_id"]
        for n in played.nodes
        if n["inferred_status"] == "skipped"
    } == {root}
