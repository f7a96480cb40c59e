"""Long waits leave memory: a row with a wake-up time is all that is left of them."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import psutil
import pytest

from pgflows.config import Settings
from pgflows.database.connections import ENGINE, connect
from pgflows.engine import open_engine
from pgflows.engine import runs as runs_in_memory
from tests.acceptance.peers import Peer, serving_steps
from tests.acceptance.runs import Runs, effect
from tests.conftest import Database, Spawn, until
from tests.df.conftest import running_engine

COPY = """
with ids as materialized (
  select lpad(to_hex(($2::bigint * 1000003 + g * 2654435761) % 4294967296), 8, '0') as id
  from generate_series(1, $3::int) g
), i as (
  insert into df.instances (id, root_node, status, submitted_by)
  select ids.id, i.root_node, i.status, i.submitted_by from ids, df.instances i where i.id = $1
  on conflict do nothing returning id
), n as (
  insert into df.nodes (id, instance_id, node_type, query, status, submitted_by, status_details)
  select n.id, i.id, n.node_type, n.query, n.status, n.submitted_by,
    replace(n.status_details::text, $1, i.id)::jsonb
  from i, df.nodes n where n.instance_id = $1
)
insert into df._work (instance_id, wake_at, vars, state, state_number)
select i.id, w.wake_at, w.vars, replace(w.state, $1, i.id), w.state_number
from i, df._work w where w.instance_id = $1
"""
SHAPE = (
    "select replace(to_jsonb(w)::text, w.instance_id, 'id') as work, "
    "(select replace(jsonb_agg(to_jsonb(n) - 'updated_at' - 'created_at')::text, "
    "w.instance_id, 'id') from df.nodes n where n.instance_id = w.instance_id) as nodes "
    "from df._work w where w.wake_at = $1 group by 1, 2"
)
DUE_QUERY = "select prosrc from pg_proc where oid = 'df._claim(uuid,integer,boolean)'::regprocedure"
FIRST = "select min(wake_at) from df._work where owner is null"  # of df._heartbeat
BEGUN = (
    "select pid, query_start from pg_stat_activity where datname = current_database() "
    "and application_name in ('pgflows engine', 'pgflows batches') and query_start is not null"
)


async def parked(runs: Runs, graph: str) -> str:
    """Starts one and waits until it has left memory."""
    instance = await runs.start(graph)
    await until(lambda: runs.parked(instance), what=f"{graph} being parked")
    return instance


async def copy(runs: Runs, instance: str, count: int, series: int) -> None:
    """So many more instances that wait as this one does."""
    for table in ("_work", "instances", "nodes"):
        await runs.conn.execute(f"alter table df.{table} set (autovacuum_enabled = off)")
    await runs.conn.execute(COPY, instance, series, count)


@pytest.fixture
async def url(runs: Runs) -> AsyncIterator[str]:
    """A step that asks to come again in 4 seconds, once."""
    async with serving_steps(runs, step=Peer().in_4_seconds) as base:
        yield f"{base}/step"


WAITS = {
    "df.sleep(4)": True,
    "df.wait_for_signal('go', 4)": True,
    "df.wait_for_signal('go')": False,
    "df.http('{url}')": True,
    "df.join(df.sleep(4), df.wait_for_signal('go', 5))": True,
    "df.race(df.sleep(999999999999999999), df.wait_for_signal('go', 4))": True,
    "df.race(df.wait_for_schedule('0 0 1 1 *'), df.sleep(4))": True,
    "df.loop(df.seq(df.sleep(4), df.break()))": True,
}


async def test_long_waits_leave_memory_and_come_back(
    database: Database, runs: Runs, url: str
) -> None:
    started = {}
    for n, wait in enumerate(WAITS):
        flow = f"df.seq({wait.replace('{url}', url)}, {effect(f'{n} after')})"
        started[await runs.start(f"df.seq({effect(f'{n} before')}, {flow})")] = WAITS[wait]
    seen: set[str] = set()

    async def all_were_parked() -> bool:
        seen.update([i for i in started if await runs.parked(i)])
        return seen == set(started)

    async with running_engine(database):
        await until(all_were_parked, what="each run being parked")
        for instance, wakes in started.items():
            if not wakes:
                row = await runs.work(instance)
                assert row is not None
                assert row["wake_at"].year == 9999, row["wake_at"]  # asyncpg's infinity
                await runs.conn.execute("select df.signal($1, 'go', '{}')", instance)
        for instance in started:
            assert await runs.ended(instance) == "completed", await runs.output(instance)
    both = [f"{n} {when}" for n in range(len(WAITS)) for when in ("after", "before")]
    assert await runs.effects() == both


async def test_run_that_a_signal_has_woken_is_not_parked_again(
    database: Database, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for a heartbeat then, though its signal is there."""
    monkeypatch.setattr(runs_in_memory, "SHOW_SECONDS", 0.002)
    settings = Settings(run_dsn=database.run_dsn)
    async with open_engine(settings, dsn=database.dsn) as engine:
        task = asyncio.create_task(engine.serve())
        started = [await runs.start("df.wait_for_signal('go')") for _ in range(200)]
        for instance in started:
            await until(partial(runs.parked, instance), what="each run being parked")
        signals = "select df.signal(i, 'go', '1') from unnest($1::text[]) i"
        await runs.conn.execute(signals, started)
        await runs.all_ended()
        parked_times = engine.stats()["parked"]
        task.cancel()
        await asyncio.wait([task])
    assert await runs.states() == {"completed": 200}
    assert parked_times == 200


@pytest.mark.parametrize(
    "graph", ["df.sleep(999999999999999999)", "df.wait_for_signal('x', 999999999)"]
)
async def test_a_wait_beyond_all_calendars_stops_nobody(
    database: Database, runs: Runs, graph: str
) -> None:
    async with running_engine(database):
        await parked(runs, graph)
        assert await runs.ended(await runs.start(effect("after"))) == "completed"


async def test_a_service_that_is_away_is_waited_for_outside_of_memory(
    database: Database, runs: Runs
) -> None:
    """So runs that call it fill no engine: here there is room for five."""
    await runs.conn.execute("insert into pgflows.base_urls (url) values ('http://127.0.0.1:1')")
    async with running_engine(database, engine_instances=5):
        waiting = [await runs.start("df.http('http://127.0.0.1:1/')") for _ in range(10)]
        seen: set[str] = set()

        async def all_were() -> bool:
            seen.update([i for i in waiting if await runs.parked(i)])
            return seen == set(waiting)

        await until(all_were, what="each run being parked")
        assert await runs.ended(await runs.start(effect("meanwhile"))) == "completed"
        assert set(await runs.states()) == {"running", "completed"}


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan that read a table."""
    if "Relation Name" in plan:
        yield plan
    for below in plan.get("Plans", ()):
        yield from scans(below)


async def test_what_is_due_is_found_by_its_index(database: Database, runs: Runs) -> None:
    async with running_engine(database):
        instance = await parked(runs, "df.sleep(86400)")
    await copy(runs, instance, 5000, 1)
    await runs.conn.execute("analyze df._work")
    engine = await runs.conn.fetchval("select gen_random_uuid()")
    await runs.conn.execute("select df._open_engine($1)", engine)
    await runs.start("'select 1'")
    source = await runs.conn.fetchval(DUE_QUERY)
    query = source.replace("p_engine", f"uuid '{engine}'").replace("p_limit", "100")
    query = query.replace("p_promise", "false")
    conn = await connect(database.dsn, ENGINE)
    for text, index, bound in (
        (query, "work_free", True),
        (query, "work_suspect", True),
        (f"{FIRST} and failures < 2", "work_free", False),
        (f"{FIRST} and failures >= 2", "work_suspect", False),
    ):
        transaction = conn.transaction()
        await transaction.start()
        explained = await conn.fetchval(f"explain (analyze, format json) {text}")
        await transaction.rollback()
        found = [s for s in scans(json.loads(explained)[0]["Plan"]) if s.get("Index Name") == index]
        assert found, explained
        assert [s for s in found if s.get("Rows Removed by Filter", 0)] == []
        assert all("wake_at <=" in s.get("Index Cond", "") for s in found if bound)
    await conn.close()


@pytest.mark.slow
async def test_a_hundred_thousand_sleepers_cost_nothing_and_all_wake(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    engine = spawn("engine", dsn=database.dsn)
    assert engine.popen is not None
    sleeper = await parked(runs, "df.sleep(86400)")
    for _ in range(20):
        assert await runs.ended(await runs.start(effect("warm"))) == "completed"
    memory = psutil.Process(engine.popen.pid).memory_info
    before = memory().rss

    await copy(runs, sleeper, 90_000, 1)
    at = await runs.conn.fetchval("select wake_at from df._work where instance_id = $1", sleeper)
    assert len(await runs.conn.fetch(SHAPE, at)) == 1, "the copies differ from the original"
    rate = await statements_a_second(runs)
    assert rate <= 2
    assert memory().rss - before < 8 * 1024 * 1024

    soon = await parked(runs, "df.sleep(4)")
    await copy(runs, soon, 10_000, 2)

    async def all_awake() -> bool:
        return (await runs.states()).get("completed", 0) >= 10_021

    await until(all_awake, 60, "10 000 runs that wake at once")
    assert await runs.conn.fetchval("select count(*) from df._work") == 90_001
    assert engine.output().count(" runs\n") == 1


async def statements_a_second(runs: Runs) -> float:
    """Of the engine's sessions: how often one of them begins another statement."""
    seen: set[tuple[int, dt.datetime]] = set()

    async def begun(number: int) -> dt.datetime:
        """When so many more were seen."""
        wanted = len(seen) + number

        async def enough() -> bool:
            seen.update([tuple(r) for r in await runs.conn.fetch(BEGUN)])
            return len(seen) >= wanted

        await until(enough, what="heartbeats")
        return max(at for _, at in seen)

    await begun(0)  # what is over by now
    first = await begun(1)
    return 5 / (await begun(5) - first).total_seconds()
