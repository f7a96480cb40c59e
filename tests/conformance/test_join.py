"""JOIN: branches side by side, all of them awaited; what they capture and how they fail."""

from __future__ import annotations

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, play, start, until_listening, until_node
from tests.conftest import until

LATER = "'select pg_sleep(0.3)'"


async def test_results_stand_in_the_order_of_the_branches(actor: Connection) -> None:
    slow = f"df.seq({LATER}, 'select 1 as a')"
    played = await play(actor, f"df.join3({slow}, 'select 2 as a', df.sleep(0))")
    assert played.value == [
        {"rows": [{"a": 1}], "row_count": 1},
        {"rows": [{"a": 2}], "row_count": 1},
        {"slept": True, "seconds": 0},
    ]


async def test_branches_run_at_the_same_time(actor: Connection) -> None:
    flow = "df.join3(df.wait_for_signal('a'), df.wait_for_signal('b'), df.wait_for_signal('c'))"
    instance = await start(actor, flow)
    waiting = "select count(*) = 3 from df.instance_nodes($1) where inferred_status = 'running' "
    await until(lambda: actor.fetchval(waiting + "and node_type = 'SIGNAL'", instance))
    await until_listening(actor, instance, waits=3)
    for name in "cab":
        await actor.fetchval(
            "select df.signal($1, $2::text, to_json($2::text)::text)", instance, name
        )
    played = await finish(actor, instance)
    assert [arm["data"] for arm in played.value] == ["a", "b", "c"]


async def test_a_failed_branch_fails_the_join_after_the_others_have_ended(
    actor: Connection,
) -> None:
    flow = f"df.join('select 1/0', df.seq({LATER}, 'select 2 as late'))"
    played = await play(actor, f"df.seq({flow}, 'select 3')")
    assert "division by zero" in played.error
    assert played.seen == {
        "THEN": played.seen["THEN"],
        "JOIN": "failed",
        "select 1/0": "failed",
        "select pg_sleep(0.3)": "completed",
        "select 2 as late": "completed",
        "select 3": "skipped",
    }


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_any_failed_branch_is_named_by_its_number(actor: Connection, failing: int) -> None:
    arms = ", ".join(f"'select 1/{int(n != failing)}'" for n in (1, 2, 3))
    played = await play(actor, f"df.join3({arms})")
    assert played.error.startswith(f"JOIN branch {failing} failed: ")
    assert played.result is None


async def test_of_several_failures_the_first_branchs_is_told(actor: Connection) -> None:
    slow = f"df.seq({LATER}, 'select 1/0')"
    played = await play(actor, f"df.join({slow}, 'select no_such_column')")
    assert played.error.startswith("JOIN branch 1 failed: ")


async def test_captures_go_into_the_branches_and_out_of_them(actor: Connection) -> None:
    flow = """df.seq(df.as('select 1 as n', 'a'), df.seq(
      df.as(df.join(
        df.as('select $a.n + 1 as n', 'b'),
        df.seq(df.as('select $a.n + 10 as n', 'c'), df.as('select $c.n + 100 as n', 'd'))
      ), 'j'),
      'select $a.n as a, $b.n as b, $c.n as c, $d.n as d, $j::jsonb #>> ''{1,rows,0,n}'' as j'))"""
    played = await play(actor, flow)
    assert played.rows == [{"a": 1, "b": 2, "c": 11, "d": 111, "j": "111"}]


async def test_a_branch_does_not_see_what_its_neighbour_captures(actor: Connection) -> None:
    flow = f"""df.join(
      df.seq(df.as('select 1 as n', 'a'), df.sleep(0)),
      df.seq({LATER}, 'select ''$a.n'' as n'))"""
    played = await play(actor, flow)
    assert played.value[1]["rows"] == [{"n": "$a.n"}]


async def test_the_last_branch_wins_where_two_capture_the_same(actor: Connection) -> None:
    first_is_slow = f"df.seq({LATER}, df.as('select 1 as n', 'a'))"
    flow = f"df.seq(df.join({first_is_slow}, df.as('select 2 as n', 'a')), 'select $a.n as n')"
    assert (await play(actor, flow)).cell == 2


async def test_a_captured_branch_that_was_not_taken_is_not_captured(actor: Connection) -> None:
    flow = """df.seq(df.join(df.if('select false', df.as('select 1', 'a'), 'select 2'), 'select 3'),
      'select ''$a'' as a')"""
    assert (await play(actor, flow)).cell == "$a"


async def test_joins_nest(actor: Connection) -> None:
    flow = """df.join(df.join(df.as('select 1', 'a'), df.as('select 2', 'b')),
      df.join3('select 3', df.sleep(0), df.join('select 4', 'select 5')))"""
    played = await play(actor, f"df.seq({flow}, 'select $a + $b as sum')")
    assert played.cell == 3
    assert set(played.seen.values()) == {"completed"}


async def test_a_join_in_a_join_fails_with_both_places(actor: Connection) -> None:
    played = await play(actor, "df.join('select 1', df.join('select 1/0', 'select 2'))")
    assert played.error.startswith("JOIN branch 2 failed: JOIN branch 1 failed: SQL execution")


async def test_a_cancelled_join_lets_all_branches_go(actor: Connection) -> None:
    flow = "df.join(df.sleep(600), df.seq(df.wait_for_signal('never'), 'select 1'))"
    instance = await start(actor, flow)
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.cancel($1, 'enough')", instance)
    played = await finish(actor, instance)
    assert (played.status, played.output) == ("cancelled", "canceled: enough")
    assert played.node("select 1")["status"] == "pending"
