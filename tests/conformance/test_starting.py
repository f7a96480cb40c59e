"""df.start and what it writes; variables at that moment; what the tables look like; limits."""

from __future__ import annotations

import re

import asyncpg
import pytest

from pgflows.database.connections import Connection
from pgflows.engine.walk import run
from tests.conformance.conftest import Stage
from tests.conformance.stage import finish, play, start, until_node
from tests.conftest import Database
from tests.df.conftest import USER, running_engine

INSTANCES = "id label root_node status submitted_by database created_at updated_at completed_at"
NODES = """id instance_id node_type query result_name left_node right_node status result error
  submitted_by database created_at updated_at status_details"""


async def test_ids_are_eight_hex_digits_and_differ(actor: Connection) -> None:
    ids = [await start(actor, "'select 1'") for _ in range(20)]
    assert all(re.fullmatch("[0-9a-f]{8}", instance) for instance in ids)
    assert len(set(ids)) == 20


@pytest.mark.parametrize("label", [None, "", "a label", "it's {x} $y ☃", "l" * 500])
async def test_labels_are_kept_as_they_are(actor: Connection, label: str | None) -> None:
    played = await play(actor, "'select 1'", label)
    info = await actor.fetchrow("select * from df.instance_info($1)", played.id)
    assert info is not None
    assert info["label"] == label


async def test_a_start_is_seen_at_once_and_undone_with_its_transaction(
    actor: Connection, stage: Stage
) -> None:
    transaction = actor.transaction()
    await transaction.start()
    instance = await start(actor, "'select 1'")
    assert await actor.fetchval("select df.status($1)", instance) == "pending"
    await transaction.rollback()
    assert await actor.fetchval("select df.status($1)", instance) is None


async def test_what_is_started_in_one_transaction_runs_after_its_commit(actor: Connection) -> None:
    await actor.execute("drop table if exists corpus.begun; create table corpus.begun (n integer)")
    async with actor.transaction():
        flow = "$q$insert into corpus.begun select count(*) from corpus.begun where n = 7$q$"
        ids = [await start(actor, flow) for _ in range(3)]
        await actor.execute("insert into corpus.begun values (7)")
    assert {(await finish(actor, instance)).status for instance in ids} == {"completed"}
    assert await actor.fetchval("select count(*) from corpus.begun where n >= 1") == 4


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("instances", INSTANCES),
        ("nodes", NODES),
        ("vars", "name value owner"),
        ("_worker_epoch", "epoch_id started_at last_seen_at"),
    ],
)
async def test_the_tables_have_these_columns_in_this_order(
    actor: Connection, table: str, columns: str
) -> None:
    found = await actor.fetchval(
        "select string_agg(attname, ' ' order by attnum) from pg_attribute "
        "where attrelid = ('df.' || $1)::regclass and attnum > 0 and not attisdropped",
        table,
    )
    assert found.split() == columns.split()


async def test_row_level_security_and_the_promised_indexes(actor: Connection) -> None:
    secured = """select bool_and(relrowsecurity) from pg_class
      where oid in ('df.instances'::regclass, 'df.nodes'::regclass, 'df.vars'::regclass)"""
    assert await actor.fetchval(secured) is True
    defined = "select indexdef from pg_indexes where schemaname = 'df' and tablename = 'instances'"
    indexes = " ".join(r[0] for r in await actor.fetch(defined))
    for columns in ("", "label, ", "status, "):
        assert f"({columns}created_at DESC, id)" in indexes
    assert "(id, submitted_by)" in indexes
    types = await actor.fetch(
        "select format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = 'df.instances'::regclass and attname in ('id', 'submitted_by') order by 1"
    )
    assert [r[0] for r in types] == ["character varying(8)", "regrole"]


async def test_the_rows_of_an_instance(actor: Connection) -> None:
    flow = "df.if('select true', df.join3('select 1', 'select 2', 'select 3'), df.sleep(3))"
    played = await play(actor, flow, "rows")
    row = await actor.fetchrow(
        "select *, submitted_by::text as who from df.instances where id = $1", played.id
    )
    assert row is not None
    assert (row["status"], row["who"], row["database"]) == ("completed", USER, None)
    assert row["created_at"] <= row["completed_at"]
    nodes = await actor.fetch("select * from df.nodes where instance_id = $1", played.id)
    assert len(nodes) == len(played.nodes) == 7
    assert {n["submitted_by"] for n in nodes} == {row["submitted_by"]}
    assert row["root_node"] in {n["id"] for n in nodes}


@pytest.mark.parametrize("flow", ["'select 1/0'", "df.wait_for_signal('never')"])
async def test_completed_at_is_for_the_completed_only(actor: Connection, flow: str) -> None:
    instance = await start(actor, flow)
    if "signal" in flow:
        await actor.fetchval("select df.cancel($1)", instance)
    played = await finish(actor, instance)
    assert played.status in ("failed", "cancelled")
    ended = "select completed_at is null from df.instances where id = $1"
    assert await actor.fetchval(ended, instance) is True


@pytest.mark.slow
@pytest.mark.ours("the extension loses it")
async def test_a_start_in_a_long_transaction_is_not_lost(actor: Connection) -> None:
    async with actor.transaction():
        instance = await start(actor, "'select 1 as n'")
        await actor.execute("select pg_sleep(6)")
    assert (await finish(actor, instance)).cell == 1


async def test_variables_are_set_read_and_removed(actor: Connection) -> None:
    get = "select df.getvar($1)"
    for name, value in (("v", "old"), ("v", "new"), ("w", "it's {v}"), ("empty", "")):
        assert await actor.fetchval("select df.setvar($1, $2)", name, value) == "OK"
    assert await actor.fetchval(get, "v") == "new"
    assert await actor.fetchval(get, "empty") == ""
    await actor.fetchval("select df.unsetvar('v')")
    assert await actor.fetchval(get, "v") is None
    assert await actor.fetchval(get, "w") == "it's {v}"
    await actor.fetchval("select df.clearvars()")
    assert await actor.fetchval("select count(*) from df.vars") == 0


async def test_variables_set_later_do_not_reach_a_run(actor: Connection) -> None:
    await actor.fetchval("select df.setvar('v', 'old')")
    instance = await start(
        actor, "df.seq(df.wait_for_signal('go'), $q$select '{v}' as v, '{w}' as w$q$)"
    )
    await actor.fetchval("select df.setvar('v', 'new')")
    await actor.fetchval("select df.setvar('w', 'new')")
    await actor.fetchval("select df.clearvars()")
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.signal($1, 'go')", instance)
    assert (await finish(actor, instance)).rows == [{"v": "old", "w": "{w}"}]


@pytest.mark.parametrize("name", ["sys_instance_id", "sys_label"])
async def test_system_variables_cannot_be_overridden(actor: Connection, name: str) -> None:
    try:
        await actor.fetchval("select df.setvar($1, 'mine')", name)
    except asyncpg.PostgresError:
        return
    played = await play(actor, f"$q$select '{{{name}}}' as v$q$", "label")
    await actor.fetchval("select df.clearvars()")
    assert played.cell == {"sys_instance_id": played.id, "sys_label": "label"}[name]


@pytest.mark.parametrize(
    "call", ["setvar('a', 'b')", "unsetvar('a')", "clearvars()", "await_instance('00000000')"]
)
async def test_a_run_may_not_change_variables_or_wait(actor: Connection, call: str) -> None:
    played = await play(actor, f"$q$select df.{call}$q$")
    assert "cannot be called inside a workflow" in played.error.replace(
        "durable function", "workflow"
    )


async def test_a_run_may_start_and_cancel_others(actor: Connection) -> None:
    played = await play(actor, "$q$select df.start('select 40 + 2 as n', 'child') as id$q$")
    assert (await finish(actor, played.cell)).cell == 42
    waiting = await start(actor, "df.wait_for_signal('never')")
    await play(actor, f"$q$select df.cancel('{waiting}', 'by a run')$q$")
    assert (await finish(actor, waiting)).output == "canceled: by a run"


def deep(levels: int) -> str:
    flow = "'select 1 as n'"
    for _ in range(levels):
        flow = f"df.seq(df.sleep(0), {flow})"
    return flow


@pytest.mark.ours("it takes the extension more than a minute")
async def test_a_graph_of_the_greatest_depth_runs(actor: Connection) -> None:
    assert (await play(actor, deep(255))).cell == 1


async def test_deep_and_wide_graphs_run(actor: Connection) -> None:
    assert (await play(actor, deep(20))).cell == 1
    wide = "df.join('select 1', 'select 2')"
    for _ in range(4):
        wide = f"df.join({wide}, {wide})"
    played = await play(actor, wide)
    assert played.status == "completed"
    assert len(played.nodes) == 63


@pytest.mark.ours("the limit of the extension cannot be lowered")
async def test_a_loop_that_never_ends_is_ended(
    user: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MOST_ITERATIONS", 5)
    async with running_engine(database):
        played = await play(user, "df.loop('select 1')")
        assert "limit of 5 iterations" in played.error
        most = "select max(execution_id) from df.instance_executions($1)"
        assert await user.fetchval(most, played.id) == 5
        nested = await play(user, "df.seq('select 0', df.loop('select 1', 'select true'))")
        assert "limit of 5 iterations" in nested.error
