"""What is seen of instances: status, result, waiting, lists, executions, drawings."""

from __future__ import annotations

import json
import re

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, look, play, start, until_node
from tests.conftest import until

BASIC = "instance_id label function_name status execution_count output"
PAGED = BASIC + " created_at completed_at next_cursor"
INFO = "instance_id label function_name function_version current_execution_id status output"
NODE = """node_id node_type query result_name left_node right_node status result status_details
  inferred_status inferred_status_from_ancestor_id updated_at"""
EXECUTION = "execution_id status event_count duration_ms output"
MARKED = re.compile(r"(SQL: .*?|SIGNAL '\w+')(?: \(.*\))? +([✓✗⊘⏳○])")
METRICS = """total_instances running_instances completed_instances failed_instances
  total_executions total_events"""


@pytest.mark.parametrize(
    ("call", "columns"),
    [
        ("list_instances()", BASIC),
        ("list_instances('completed')", BASIC),
        ("list_instances(null, 5)", BASIC),
        ("list_instances(null, 5, null)", PAGED),
        ("list_instances(null, 5, null, null)", PAGED),
        ("instance_info('{id}')", INFO),
        ("instance_nodes('{id}')", NODE),
        ("instance_executions('{id}')", EXECUTION),
        ("instance_executions('{id}', 1)", EXECUTION),
    ],
)
async def test_what_is_read_has_these_columns(actor: Connection, call: str, columns: str) -> None:
    played = await play(actor, "'select 1'")
    [row, *_] = await actor.fetch(f"select * from df.{call.format(id=played.id)}")  # noqa: S608
    assert list(row.keys()) == columns.split()


async def test_metrics_count_what_everybody_did(actor: Connection, stage_admin: Connection) -> None:
    def figures(row: asyncpg.Record | None) -> list[int]:
        assert row is not None
        assert list(row.keys()) == METRICS.split()
        return list(row.values())

    before = figures(await stage_admin.fetchrow("select * from df.metrics()"))
    await play(actor, "'select 1'")
    await play(actor, "'select 1/0'")
    waiting = await start(actor, "df.wait_for_signal('never')")
    await until_node(actor, waiting, "SIGNAL")
    after = figures(await stage_admin.fetchrow("select * from df.metrics()"))
    grown = [b - a for a, b in zip(before[:4], after[:4], strict=True)]
    assert grown == [3, 1, 1, 1]
    await actor.fetchval("select df.cancel($1)", waiting)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await actor.fetch("select * from df.metrics()")


async def test_status_and_result_of_every_end(actor: Connection) -> None:
    ends = {
        "completed": await start(actor, "'select 1 as n'"),
        "failed": await start(actor, "'select 1/0'"),
        "cancelled": await start(actor, "df.wait_for_signal('never')"),
    }
    await actor.fetchval("select df.cancel($1, 'why')", ends["cancelled"])
    for status, instance in ends.items():
        assert await actor.fetchval("select df.await_instance($1)", instance) == status
        assert await actor.fetchval("select df.status($1)", instance) == status
        result = await actor.fetchval("select df.result($1)", instance)
        assert (result is not None) == (status == "completed")
        output = (await look(actor, instance)).output or ""
        expected = {"completed": '"n":1', "failed": "division", "cancelled": "canceled: why"}
        assert expected[status] in output
        listed = await actor.fetch("select * from df.list_instances($1)", status)
        [row] = [r for r in listed if r["instance_id"] == instance]
        assert (row["output"], row["status"], row["execution_count"]) == (output, status, 1)
        [execution] = await actor.fetch("select * from df.instance_executions($1)", instance)
        shown = "Completed" if status == "completed" else "Failed"
        assert (execution["execution_id"], execution["status"]) == (1, shown)
        assert execution["output"] == output
        assert execution["duration_ms"] >= 0


@pytest.mark.parametrize(
    "call", ["status('nobody')", "result('nobody')", "status(null)", "result(null)"]
)
async def test_nobody_has_no_status_and_no_result(actor: Connection, call: str) -> None:
    assert await actor.fetchval(f"select df.{call}") is None


@pytest.mark.parametrize("reader", ["instance_info", "instance_nodes", "instance_executions"])
async def test_nobody_has_no_rows(actor: Connection, reader: str) -> None:
    assert await actor.fetch(f"select * from df.{reader}('deadbeef')") == []  # noqa: S608


async def test_awaiting_ends_with_the_instance(actor: Connection, stranger: Connection) -> None:
    instance = await start(actor, "'select pg_sleep(0.5)'")
    assert await actor.fetchval("select df.status($1)", instance) in ("pending", "running")
    assert await actor.fetchval("select df.await_instance($1, 30)", instance) == "completed"
    with pytest.raises(asyncpg.PostgresError):
        await stranger.fetchval("select df.await_instance($1, 30)", instance)


@pytest.mark.ours("the extension writes the output after the status")
async def test_what_stands_beside_a_wait_sees_the_end(actor: Connection) -> None:
    instance = await start(actor, "'select pg_sleep(0.3)::text as x, 7 as n'")
    row = await actor.fetchrow(
        "select df.await_instance($1), df.status($1), df.result($1), "
        "(select i.output from df.instance_info($1) i), "
        "(select min(n.status) from df.instance_nodes($1) n), "
        "(select min(l.status) from df.list_instances() l where l.instance_id = $1)",
        instance,
    )
    assert row is not None
    assert list(row)[:2] == list(row)[4:] == ["completed", "completed"]
    assert json.loads(row[2]) == json.loads(row[3])


async def test_lists_are_filtered_and_newest_first(actor: Connection) -> None:
    label = f"listed {await actor.fetchval('select gen_random_uuid()')}"
    ids = [(await play(actor, f"'select 1/{n % 2}'", label)).id for n in range(5)]
    paged = "select instance_id, next_cursor from df.list_instances($1, $2, $3, $4)"

    async def page(
        status: str | None, limit: int, cursor: str | None = None
    ) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await actor.fetch(paged, status, limit, label, cursor)
        return found

    assert [r["instance_id"] for r in await page(None, 10)] == ids[::-1]
    assert [r["instance_id"] for r in await page("completed", 10)] == [ids[3], ids[1]]
    assert await page("pending", 10) == []
    first = await page("failed", 2)
    assert [r["instance_id"] for r in first] == [ids[4], ids[2]]
    assert first[0]["next_cursor"] == first[1]["next_cursor"] is not None
    [last] = await page("failed", 2, first[0]["next_cursor"])
    assert (last["instance_id"], last["next_cursor"]) == (ids[0], None)
    unpaged = await actor.fetch("select * from df.list_instances(null, 5)")
    assert [r["instance_id"] for r in unpaged] == ids[::-1]
    assert {r["function_name"] for r in unpaged} != {None}


@pytest.mark.parametrize(
    "call", ["(null, 1001)", "(null, 1001, null)", "(null, 5, null, 'no cursor')"]
)
async def test_pages_have_a_limit_and_cursors_are_checked(actor: Connection, call: str) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await actor.fetch(f"select * from df.list_instances{call}")  # noqa: S608


async def test_a_running_instance_shows_where_it_is(actor: Connection) -> None:
    flow = (
        "df.seq('select 1', df.join(df.wait_for_signal('go'), df.seq('select 2', df.sleep(600))))"
    )
    instance = await start(actor, flow)
    for node_type in ("SIGNAL", "SLEEP"):
        await until_node(actor, instance, node_type)
    shown = await look(actor, instance)
    assert (shown.status, shown.output, shown.result) == ("running", None, None)
    assert shown.node("select 1")["status"] == shown.node("select 2")["status"] == "completed"
    running = {n["node_type"] for n in shown.nodes if n["inferred_status"] == "running"}
    assert running == {"THEN", "JOIN", "SIGNAL", "SLEEP"}
    [execution] = await actor.fetch("select * from df.instance_executions($1)", instance)
    assert (execution["status"], execution["output"]) == ("Running", None)
    await actor.fetchval("select df.cancel($1)", instance)


async def test_nodes_of_the_turn_before_read_as_pending(actor: Connection) -> None:
    body = """df.seq(df.wait_for_signal('turn'), df.seq('select 1',
      df.if('select true', 'select 2', 'select 3')))"""
    instance = await start(actor, f"df.loop({body})")
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.signal($1, 'turn')", instance)
    second = (
        "select count(*) from df.instance_nodes($1) where node_type = 'SIGNAL' "
        "and inferred_status = 'running' and status_details like '%::2%'"
    )
    await until(lambda: actor.fetchval(second, instance))
    shown = await look(actor, instance)
    assert {shown.seen[text] for text in ("select 1", "select 2", "select 3", "IF")} == {"pending"}
    before = shown.node("select 1")
    assert before["status"] == "completed"
    assert before["inferred_status_from_ancestor_id"] is not None
    assert json.loads(before["status_details"]) == {"execution_id": f"{instance}::1"}
    await actor.fetchval("select df.cancel($1)", instance)


async def test_the_right_side_of_a_failed_sequence_is_skipped(actor: Connection) -> None:
    played = await play(
        actor, "df.seq('select 1', df.seq('select 1/0', df.seq('select 2', 'select 3')))"
    )
    skipped = [n for n in played.nodes if n["inferred_status"] == "skipped"]
    assert {n["query"] or n["node_type"] for n in skipped} == {"THEN", "select 2", "select 3"}
    assert {n["status"] for n in skipped} == {"pending"}
    by_id = {n["node_id"]: n for n in played.nodes}
    assert {by_id[n["inferred_status_from_ancestor_id"]]["status"] for n in skipped} == {"failed"}
    assert all(n["status_details"] is None for n in skipped)


@pytest.mark.parametrize(
    ("flow", "parts"),
    [
        ("'select 1 as n'", ["SQL: select 1 as n"]),
        ("df.join3('a', 'b', df.sleep(2))", ["JOIN (3)", "branch 3", "SLEEP 2s"]),
        ("df.race('a', 'b')", ["RACE", "SQL: a"]),
        ("df.loop('a', 'b')", ["LOOP (while)", "while:", "SQL: b"]),
        ("df.loop(df.break('x'))", ["LOOP", "body:", "BREAK"]),
        ("df.if_rows('r', 'a', 'b')", ["IF", "then:", "else:"]),
        ("df.wait_for_schedule('* * * * *')", ["WAIT '* * * * *'"]),
        ("df.wait_for_signal('s', 5)", ["SIGNAL 's'", "5s"]),
        ("df.http('http://h/p', 'get')", ["HTTP GET http://h/p"]),
        ("df.as('a', 'n')", ["|=> 'n'"]),
    ],
)
async def test_an_expression_is_drawn(actor: Connection, flow: str, parts: list[str]) -> None:
    count = "select count(*) from df.instances"
    before = await actor.fetchval(count)
    drawn = await actor.fetchval(f"select df.explain({flow})")
    assert all(part in drawn for part in parts), drawn
    assert await actor.fetchval(count) == before


@pytest.mark.ours("the extension shows a statement's line breaks, cut after some forty characters")
async def test_a_statement_is_drawn_on_one_line_and_whole(actor: Connection) -> None:
    text = f"select   1\n as n, '{'x' * 200}' as x"
    drawn = await actor.fetchval("select df.explain(df.sql($1))", text)
    assert f"SQL: select 1 as n, '{'x' * 200}' as x" in drawn


async def test_an_instance_is_drawn_with_a_mark_for_each_status(actor: Connection) -> None:
    flow = "df.seq('select 1', df.seq(df.if('select false', 'select 2', 'select 1/0'), 'select 3'))"
    failed = await actor.fetchval("select df.explain($1)", (await play(actor, flow, "drawn")).id)
    instance = await start(
        actor, "df.seq('select 1', df.seq(df.wait_for_signal('go'), 'select 2'))"
    )
    await until_node(actor, instance, "SIGNAL")
    running = await actor.fetchval("select df.explain($1)", instance)
    await actor.fetchval("select df.cancel($1, 'enough')", instance)
    marks = dict(MARKED.findall(failed + running))
    assert "(drawn)" in failed
    assert "SQL execution failed: error returned from database: div" in failed
    assert marks["SQL: select false"] == "✓"
    assert marks["SQL: select 1/0"] == "✗"
    assert marks["SQL: select 3"] == "⊘"
    assert marks["SIGNAL 'go'"] == "⏳"
    assert marks["SQL: select 2"] == "○"
    assert (await finish(actor, instance)).output == "canceled: enough"
    assert "canceled: enough" in await actor.fetchval("select df.explain($1)", instance)
    assert "not found" in await actor.fetchval("select df.explain('deadbeef')")


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize(
    "call",
    [
        "instance_executions('{id}', {limit})",
        "instance_executions('deadbeef', {limit})",
        "list_instances(null, {limit})",
        "list_instances(null, {limit}, null)",
    ],
)
async def test_a_limit_below_one_is_an_error(actor: Connection, call: str, limit: int) -> None:
    instance = (await play(actor, "'select 1'")).id
    with pytest.raises(asyncpg.PostgresError, match="limit_count must be at least 1"):
        await actor.fetch(f"select * from df.{call.format(id=instance, limit=limit)}")  # noqa: S608


@pytest.mark.parametrize("seconds", [0, -1])
async def test_waiting_takes_a_positive_time(actor: Connection, seconds: int) -> None:
    with pytest.raises(asyncpg.PostgresError, match="Timeout must be positive"):
        await actor.fetchval("select df.await_instance('deadbeef', $1)", seconds)


async def test_older_names_still_answer(actor: Connection) -> None:
    instance = await start(actor, "df.seq('select 1', 'select 2')")
    assert await actor.fetchval("select df.wait_for_completion($1)", instance) == "completed"
    nodes = await actor.fetch("select * from df.instance_nodes($1, 5)", instance)
    assert {n["execution_id"] for n in nodes} == {1}
    assert sorted(n["node_type"] for n in nodes) == ["SQL", "SQL", "THEN"]
    assert "inferred_status" not in nodes[0]


async def test_a_run_is_running_as_soon_as_it_has_done_something(actor: Connection) -> None:
    made = "begun_" + await actor.fetchval("select left(gen_random_uuid()::text, 8)")
    await actor.execute(f"create table corpus.{made} (n integer)")
    instance = await start(
        actor,
        f"df.seq('insert into corpus.{made} values (1)', 'select pg_sleep(2)')",  # noqa: S608
    )
    await until(lambda: actor.fetchval(f"select n from corpus.{made}"))  # noqa: S608
    info = "select status from df.instance_info($1)"
    assert await actor.fetchval("select df.status($1)", instance) == "running"
    assert await actor.fetchval(info, instance) == "running"
    await finish(actor, instance)
    await actor.execute(f"drop table corpus.{made}")


async def test_what_a_server_says_of_itself(actor: Connection, stage_admin: Connection) -> None:
    assert (await actor.fetchval("select df.version()")).startswith("0.")
    assert await actor.fetchval("select df.target_database()") == await actor.fetchval(
        "select current_database()"
    )
    beat = (
        "select max(last_seen_at) > clock_timestamp() - interval '15 seconds' from df._worker_epoch"
    )
    assert await until(lambda: stage_admin.fetchval(beat))
