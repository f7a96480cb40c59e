"""SIGNAL, SLEEP and WAIT_SCHEDULE: what an instance waits for, and what it gets."""

from __future__ import annotations

import json
from datetime import timedelta

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, look, play, start, until_listening, until_node
from tests.conftest import until


async def waiting(conn: Connection, flow: str) -> str:
    instance = await start(conn, flow)
    await until_node(conn, instance, "SIGNAL")
    return instance


@pytest.mark.parametrize(
    ("data", "received"),
    [
        ("'{\"a\": [1, null]}'", {"a": [1, None]}),
        ("'[1]'", [1]),
        ("'12'", 12),
        ("'\"text\"'", "text"),
        ("'null'", None),
        ("'text'", "text"),
        ("'{broken'", "{broken"),
        ("''", ""),
        ("'it''s $x {v}'", "it's $x {v}"),
    ],
)
async def test_data_arrives_as_json_or_as_a_string(
    actor: Connection, data: str, received: object
) -> None:
    instance = await waiting(actor, "df.wait_for_signal('go')")
    assert await actor.fetchval(f"select df.signal($1, 'go', {data})", instance) == "OK"
    played = await finish(actor, instance)
    assert played.value == {"signal_name": "go", "timed_out": False, "data": received}


async def test_a_signal_of_another_name_wakes_nobody(actor: Connection) -> None:
    instance = await waiting(actor, "df.wait_for_signal('go')")
    await actor.fetchval("select df.signal($1, 'GO')", instance)
    await actor.fetchval("select df.signal($1, 'go', '1')", instance)
    assert (await finish(actor, instance)).value["data"] == 1


async def test_a_signal_wakes_one_wait_and_the_next_needs_another(actor: Connection) -> None:
    flow = """df.seq(df.as(df.wait_for_signal('go'), 'a'),
      df.seq(df.as(df.wait_for_signal('go'), 'b'), 'select $a.data as a, $b.data as b'))"""
    instance = await waiting(actor, flow)
    await actor.fetchval("select df.signal($1, 'go', '1')", instance)
    second = (
        "select count(*) filter (where status = 'completed') = 1 "
        "and count(*) filter (where inferred_status = 'running') = 1 "
        "from df.instance_nodes($1) where node_type = 'SIGNAL'"
    )
    await until(lambda: actor.fetchval(second, instance))
    await until_listening(actor, instance)
    await actor.fetchval("select df.signal($1, 'go', '2')", instance)
    assert (await finish(actor, instance)).rows == [{"a": 1, "b": 2}]


async def test_a_time_out_completes_the_node(actor: Connection) -> None:
    flow = """df.seq(df.as(df.wait_for_signal('go', 1), 's'),
      df.if('select $s.timed_out', 'select ''late'' as r', 'select ''in time'' as r'))"""
    assert (await play(actor, flow)).cell == "late"
    instance = await waiting(actor, flow.replace("'go', 1", "'go', 600"))
    await actor.fetchval("select df.signal($1, 'go')", instance)
    assert (await finish(actor, instance)).cell == "in time"


@pytest.mark.ours("the extension drops what comes before the waiter")
async def test_an_early_signal_is_kept_for_its_waiter(actor: Connection) -> None:
    flow = "df.seq(df.wait_for_signal('first'), df.wait_for_signal('second'))"
    instance = await waiting(actor, flow)
    await actor.fetchval("select df.signal($1, 'second', '2')", instance)
    await actor.fetchval("select df.signal($1, 'first', '1')", instance)
    assert (await finish(actor, instance)).value["data"] == 2


@pytest.mark.extension("the embedded engine keeps what comes before the waiter")
async def test_an_early_signal_is_dropped(actor: Connection) -> None:
    flow = "df.seq(df.wait_for_signal('first'), df.wait_for_signal('second', 2))"
    instance = await waiting(actor, flow)
    await actor.fetchval("select df.signal($1, 'second', '2')", instance)
    await actor.fetchval("select df.signal($1, 'first', '1')", instance)
    assert (await finish(actor, instance)).value["timed_out"] is True


async def test_a_signal_sent_by_a_run_reaches_another(actor: Connection) -> None:
    instance = await waiting(actor, "df.wait_for_signal('go')")
    await play(actor, f"$q$select df.signal('{instance}', 'go', '\"from a run\"')$q$")
    assert (await finish(actor, instance)).value["data"] == "from a run"


@pytest.mark.ours("on the extension a signal takes effect at once")
async def test_a_rolled_back_signal_was_never_sent(actor: Connection) -> None:
    instance = await waiting(actor, "df.wait_for_signal('go')")
    transaction = actor.transaction()
    await transaction.start()
    await actor.fetchval("select df.signal($1, 'go', '1')", instance)
    await transaction.rollback()
    await actor.fetchval("select df.signal($1, 'go', '2')", instance)
    assert (await finish(actor, instance)).value["data"] == 2


async def test_a_waiting_node_says_what_for(actor: Connection) -> None:
    instance = await waiting(actor, "df.seq(df.wait_for_signal('go', 600), 'select 1')")
    node = (await look(actor, instance)).node("SIGNAL")
    assert json.loads(node["query"]) == {"signal_name": "go", "timeout_seconds": 600}
    assert await actor.fetchval("select df.status($1)", instance) == "running"
    await actor.fetchval("select df.cancel($1)", instance)


async def test_an_ended_instance_takes_signals_and_ignores_them(actor: Connection) -> None:
    played = await play(actor, "'select 1'")
    assert await actor.fetchval("select df.signal($1, 'go')", played.id) == "OK"
    assert await look(actor, played.id) == played


@pytest.mark.parametrize("call", ["df.signal('00000000', 'go')", "df.signal('nobody', 'go')"])
async def test_nobody_is_no_receiver(actor: Connection, call: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="not found or access denied"):
        await actor.fetchval(f"select {call}")


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_sleep_takes_at_least_its_time(actor: Connection, seconds: int) -> None:
    flow = f"""df.seq(df.as('select clock_timestamp() as t', 'a'),
      df.seq(df.as(df.sleep({seconds}), 's'), 'select clock_timestamp() - $a.t::timestamptz
        >= interval ''{seconds} seconds'' as slept'))"""
    played = await play(actor, flow)
    assert played.cell is True
    assert json.loads(played.node("SLEEP")["result"]) == {"slept": True, "seconds": seconds}


async def test_a_schedule_is_waited_for(actor: Connection) -> None:
    instance = await start(actor, "df.seq(df.wait_for_schedule('0 0 29 2 *'), 'select 1')")
    await until_node(actor, instance, "WAIT_SCHEDULE")
    shown = await look(actor, instance)
    assert json.loads(shown.node("WAIT_SCHEDULE")["query"]) == {"cron_expr": "0 0 29 2 *"}
    assert shown.seen["select 1"] == "pending"
    await actor.fetchval("select df.cancel($1)", instance)
    assert (await finish(actor, instance)).status == "cancelled"


@pytest.mark.slow
async def test_a_schedule_comes_with_its_minute(actor: Connection) -> None:
    flow = """df.seq(df.as('select clock_timestamp() as t', 'a'), df.seq(
      df.wait_for_schedule('* * * * *'),
      'select $a.t as before, clock_timestamp() as after'))"""
    instance = await start(actor, flow)
    await actor.fetchval("select df.await_instance($1, 120)", instance)
    played = await finish(actor, instance)
    assert json.loads(played.node("WAIT_SCHEDULE")["result"]) == {"scheduled": True}
    minute = "select date_trunc('minute', $1::text::timestamptz)"
    [row] = played.rows
    before, after = [await actor.fetchval(minute, row[name]) for name in ("before", "after")]
    assert after - before == timedelta(minutes=1)
