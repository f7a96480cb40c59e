"""LOOP and BREAK: do-while, nested, in branches; what is captured and what is counted."""

from __future__ import annotations

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, play, start, until_node
from tests.conftest import until

MANY = 12  # iterations; the extension takes a second for each
COUNT = "df.as('select $i.n + 1 as n', 'i')"


def counted(loop: str, then: str = "'select $i.n as n'") -> str:
    """A flow with a loop that counts in i, from 0."""
    return f"df.seq(df.as('select 0 as n', 'i'), df.seq({loop}, {then}))"


@pytest.fixture
async def tally(actor: Connection) -> Connection:
    """The same connection, with an empty table corpus.tally."""
    await actor.execute("drop table if exists corpus.tally; create table corpus.tally (n integer)")
    return actor


async def test_the_body_runs_before_the_condition(actor: Connection) -> None:
    played = await play(actor, counted(f"df.loop({COUNT}, 'select false')"))
    assert played.cell == 1


@pytest.mark.parametrize(
    ("condition", "turns"),
    [
        ("'select $i.n < 2'", 2),
        ("'select 2 - $i.n'", 2),
        ("'select 1 where $i.n < 2'", 2),
        ("df.seq('select true', 'select $i.n < 2')", 2),
        ("df.as('select $i.n < 2 as again', 'c')", 2),
    ],
)
async def test_it_goes_on_while_the_condition_is_true(
    actor: Connection, condition: str, turns: int
) -> None:
    assert (await play(actor, counted(f"df.loop({COUNT}, {condition})"))).cell == turns


async def test_its_result_is_the_last_bodys(actor: Connection) -> None:
    played = await play(
        actor, counted(f"df.as(df.loop({COUNT}, 'select $i.n < 2'), 'l')", "'select $l as l'")
    )
    assert played.cell == 2


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("", None),
        ("null", None),
        ("'null'", None),
        ("'text'", "text"),
        ("'select 1'", "select 1"),
        ("'12'", 12),
        ("'\"12\"'", "12"),
        ("'{\"a\": [1, {}]}'", {"a": [1, {}]}),
        ("'{not json'", "{not json"),
        ("''", ""),
    ],
)
async def test_a_break_gives_its_value(actor: Connection, value: str, result: object) -> None:
    played = await play(
        actor, f"df.seq('select 0', df.loop(df.seq('select 1', df.break({value}))))"
    )
    assert played.value == result
    assert played.node("LOOP")["status"] == played.node("BREAK")["status"] == "completed"


async def test_a_break_ends_the_innermost_loop_only(actor: Connection) -> None:
    inner = f"df.loop(df.seq({COUNT}, df.break('\"inner\"')))"
    outer = f"df.loop(df.as({inner}, 'b'), 'select $i.n < 2')"
    played = await play(actor, counted(outer, "'select $i.n as n, $b as b'"))
    assert played.rows == [{"n": 2, "b": '"inner"'}]


async def test_what_follows_a_break_is_skipped(actor: Connection) -> None:
    flow = "df.seq('select 0', df.loop(df.seq(df.break('1'), 'select 2')))"
    played = await play(actor, flow)
    assert played.seen["select 2"] == "skipped"


async def test_a_break_in_a_branch_of_a_condition(actor: Connection) -> None:
    stop = "df.if('select $i.n >= 2', df.break('\"enough\"'), 'select 0')"
    played = await play(
        actor,
        counted(f"df.as(df.loop(df.seq({COUNT}, {stop})), 'l')", "'select $i.n as n, $l as l'"),
    )
    assert played.rows == [{"n": 2, "l": '"enough"'}]


async def test_outside_of_a_loop_a_break_fails(actor: Connection) -> None:
    played = await play(actor, "df.seq(df.loop(df.break()), df.break('x'))")
    assert played.status == "failed"
    assert "df.break() was called outside of a loop" in played.error


async def test_a_nested_loop_keeps_its_captures_and_a_root_loop_does_not(
    tally: Connection,
) -> None:
    kept = "df.if('select ''$k'' <> ''$'' || ''k''', df.break('kept'), df.as('select 1 as n', 'k'))"
    second = "df.if('select count(*) > 1 from corpus.tally', df.break('forgotten'), 'select 1')"
    body = f"df.seq('insert into corpus.tally values (1)', df.seq({kept}, {second}))"  # noqa: S608 - constants
    assert (await play(tally, f"df.seq('select 0', df.loop({body}))")).value == "kept"
    await tally.execute("truncate corpus.tally")
    assert (await play(tally, f"df.loop({body})")).value == "forgotten"


async def test_a_nested_loop_in_a_loop_starts_anew_with_the_captures_so_far(
    actor: Connection,
) -> None:
    inner = f"df.loop({COUNT}, 'select $i.n % 2 <> 0')"
    played = await play(actor, counted(f"df.loop({inner}, 'select $i.n < 4')"))
    assert played.cell == 4
    assert await actor.fetchval("select count(*) from df.instance_executions($1)", played.id) == 1


async def test_a_root_loop_makes_an_execution_for_each_turn(tally: Connection) -> None:
    body = "'insert into corpus.tally values (1) returning n'"
    again = "'select count(*) < 3 from corpus.tally'"
    played = await play(tally, f"df.loop({body}, {again})")
    assert played.rows == [{"n": 1}]
    rows = await tally.fetch(
        "select execution_id, status, output from df.instance_executions($1) order by 1", played.id
    )
    assert [(r["execution_id"], r["status"]) for r in rows] == [
        (1, "ContinuedAsNew"),
        (2, "ContinuedAsNew"),
        (3, "Completed"),
    ]
    assert rows[2]["output"] == played.output
    few = "select count(*) from df.instance_executions($1, 2)"
    assert await tally.fetchval(few, played.id) == 2
    current = "select current_execution_id from df.instance_info($1)"
    assert await tally.fetchval(current, played.id) == 3
    listed = "select execution_count from df.list_instances() where instance_id = $1"
    assert await tally.fetchval(listed, played.id) == 3
    details = [n["status_details"] for n in played.nodes]
    assert details == [f'{{"execution_id": "{played.id}::3"}}'] * len(details)


async def test_loops_in_the_branches_of_a_join_count_apart(actor: Connection) -> None:
    played = await play(
        actor,
        counted(
            f"df.join(df.loop({COUNT}, 'select $i.n < 2'), df.loop({COUNT}, 'select $i.n < 3'))"
        ),
    )
    assert played.cell == 3
    join = played.node("JOIN")["result"]
    assert '"n": 2' in join
    assert '"n": 3' in join


async def test_a_loop_in_a_join_in_a_loop(tally: Connection) -> None:
    inner = "df.loop(df.seq('insert into corpus.tally values (1)', df.break('[1]')))"
    outer = f"df.loop(df.join({inner}, {COUNT}), 'select $i.n < 3')"
    played = await play(tally, counted(outer))
    assert played.cell == 3
    assert await tally.fetchval("select count(*) from corpus.tally") == 3


async def test_a_break_in_a_branch_of_a_join_waits_for_the_other(tally: Connection) -> None:
    other = "df.seq('select pg_sleep(0.3)', 'insert into corpus.tally values (1)')"
    body = f"df.seq(df.join(df.break('\"out\"'), {other}), 'select 1')"
    played = await play(tally, f"df.seq('select 0', df.loop({body}))")
    assert played.value == "out"
    assert await tally.fetchval("select count(*) from corpus.tally") == 1


async def test_a_loop_of_many_turns_ends(tally: Connection) -> None:
    body = "'insert into corpus.tally values (1)'"
    again = f"'select count(*) < {MANY} from corpus.tally'"  # noqa: S608 - a constant
    flow = f"df.seq('select 0', df.loop({body}, {again}))"
    assert (await play(tally, flow)).status == "completed"
    assert await tally.fetchval("select count(*) from corpus.tally") == MANY


async def test_a_failed_turn_fails_the_loop_and_names_it(actor: Connection) -> None:
    body = f"df.seq({COUNT}, 'select 1 / (2 - $i.n) as r')"
    played = await play(actor, counted(f"df.loop({body}, 'select true')"))
    assert played.error.startswith("Loop sub-orchestration failed: SQL execution failed: ")
    assert played.node("LOOP")["status"] == "failed"
    assert played.seen["select true"] in ("skipped", "pending")


async def test_a_failed_condition_fails_the_loop(actor: Connection) -> None:
    played = await play(actor, "df.seq('select 0', df.loop('select 1', 'select 1/0'))")
    assert "division by zero" in played.error
    assert played.node("select 1")["status"] == "completed"
    assert played.node("select 1/0")["status"] == "failed"


async def test_a_loop_that_is_cancelled_ends(tally: Connection) -> None:
    flow = "df.loop(df.seq('insert into corpus.tally values (1)', df.wait_for_signal('turn')))"
    instance = await start(tally, flow)
    await until_node(tally, instance, "SIGNAL")
    await tally.fetchval("select df.signal($1, 'turn')", instance)
    await until(lambda: tally.fetchval("select count(*) = 2 from corpus.tally"))
    await tally.fetchval("select df.cancel($1, 'stop')", instance)
    played = await finish(tally, instance)
    assert (played.status, played.output) == ("cancelled", "canceled: stop")
    assert await tally.fetchval("select count(*) from corpus.tally") == 2
