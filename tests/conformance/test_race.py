"""RACE: the first branch to end decides, well or badly; the other is abandoned."""

from __future__ import annotations

import json

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, play, start, until_node


@pytest.mark.parametrize(
    ("left", "right"),
    [("'select 1 as n'", "df.sleep(600)"), ("df.wait_for_signal('never')", "'select 1 as n'")],
)
async def test_the_first_to_end_decides_and_the_other_is_left(
    actor: Connection, left: str, right: str
) -> None:
    played = await play(actor, f"df.seq(df.as(df.race({left}, {right}), 'r'), 'select $r as r')")
    assert played.cell == 1
    loser = next(n for n in played.nodes if n["node_type"] in ("SLEEP", "SIGNAL"))
    assert loser["status"] in ("running", "pending")
    assert loser["inferred_status"] == "skipped"
    race = played.node("RACE")
    assert loser["inferred_status_from_ancestor_id"] == race["node_id"]
    assert race["status"] == "completed"


@pytest.mark.parametrize(("side", "arms"), [("left", "{f}, {s}"), ("right", "{s}, {f}")])
async def test_the_first_to_fail_fails_the_race(actor: Connection, side: str, arms: str) -> None:
    race = arms.format(f="'select 1/0'", s="df.seq(df.sleep(600), 'select 2')")
    played = await play(actor, f"df.seq(df.race({race}), 'select 3')")
    assert played.error.startswith(f"RACE {side} branch failed: SQL execution failed: ")
    assert played.seen["select 2"] == played.seen["select 3"] == "skipped"


async def test_a_branch_that_would_fail_later_does_not_matter(actor: Connection) -> None:
    played = await play(actor, "df.race('select 1 as n', df.seq(df.sleep(600), 'select 1/0'))")
    assert played.cell == 1
    assert played.seen["select 1/0"] == "skipped"


async def test_captures_of_the_winner_only_come_out(actor: Connection) -> None:
    flow = """df.seq(df.as('select 1 as n', 'a'), df.seq(
      df.race(
        df.seq(df.as('select 10 as n', 'a'), df.seq(df.as('select 11', 'lost'), df.sleep(600))),
        df.seq('select pg_sleep(0.3)', df.seq(df.as('select $a.n + 1 as n', 'b'), 'select 0'))
      ),
      'select $a.n as a, $b.n as b, ''$lost'' as lost'))"""
    assert (await play(actor, flow)).rows == [{"a": 1, "b": 2, "lost": "$lost"}]


async def test_a_race_of_three_is_a_race_in_a_race(actor: Connection) -> None:
    flow = "df.race(df.sleep(600), df.race(df.wait_for_signal('never'), 'select 3 as n'))"
    played = await play(actor, flow)
    assert played.cell == 3
    assert [n["status"] for n in played.nodes if n["node_type"] == "RACE"] == ["completed"] * 2


async def test_a_race_as_a_time_limit(actor: Connection) -> None:
    flow = """df.seq(df.as(df.race(df.wait_for_signal('go'), df.sleep(1)), 'r'),
      'select $r::jsonb ? ''slept'' as late')"""
    assert (await play(actor, flow)).cell is True
    instance = await start(actor, flow.replace("df.sleep(1)", "df.sleep(600)"))
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.signal($1, 'go')", instance)
    assert (await finish(actor, instance)).cell is False


async def test_a_losing_loop_is_cancelled_and_shown_failed(actor: Connection) -> None:
    forever = "df.loop(df.seq('select 1 as n', df.sleep(1)), 'select true')"
    winner = "df.seq(df.wait_for_signal('go'), 'select 7 as won')"
    instance = await start(actor, f"df.race({forever}, {winner})")
    await until_node(actor, instance, "LOOP")
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.signal($1, 'go')", instance)
    played = await finish(actor, instance)
    assert played.cell == 7
    assert played.node("LOOP")["status"] == "failed"
    assert "cancel" in (played.node("LOOP")["result"] or "")
    assert played.node("RACE")["status"] == "completed"


async def test_a_loop_can_win_with_its_break(actor: Connection) -> None:
    flow = """df.race(df.sleep(600), df.loop(df.seq('select 1', df.break('"won"'))))"""
    played = await play(actor, flow)
    assert played.value == "won"
    assert played.node("LOOP")["status"] == "completed"


async def test_a_race_in_a_loop_is_run_anew_each_turn(actor: Connection) -> None:
    race = "df.race(df.as('select $i.n + 1 as n', 'i'), df.sleep(600))"
    flow = f"df.loop({race}, 'select $i.n < 3')"
    played = await play(actor, f"df.seq(df.as('select 0 as n', 'i'), {flow})")
    assert played.cell == 3
    path = json.loads(played.node("RACE")["status_details"])["execution_id"]
    assert path == f"{played.id}::1::{played.node('LOOP')['node_id']}::3"


async def test_a_break_in_a_branch_that_wins_ends_the_loop(actor: Connection) -> None:
    race = "df.race(df.break('\"out\"'), df.sleep(600))"
    played = await play(actor, f"df.seq('select 0', df.loop(df.seq({race}, 'select 1')))")
    assert played.value == "out"
    assert played.seen["select 1"] == "skipped"


async def test_a_join_in_a_race_and_a_race_in_a_join(actor: Connection) -> None:
    join = "df.join('select 1 as n', df.sleep(0))"
    played = await play(actor, f"df.race({join}, df.sleep(600))")
    assert played.value[0]["rows"] == [{"n": 1}]
    played = await play(actor, "df.join(df.race('select 1 as n', df.sleep(600)), 'select 2 as n')")
    assert [arm["rows"][0]["n"] for arm in played.value] == [1, 2]


async def test_a_cancelled_race_lets_both_branches_go(actor: Connection) -> None:
    instance = await start(actor, "df.race(df.sleep(600), df.wait_for_signal('never'))")
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.cancel($1, 'enough')", instance)
    played = await finish(actor, instance)
    assert (played.status, played.result) == ("cancelled", None)
    assert {n["status"] for n in played.nodes} == {"running"}
