"""Whoever has to move a run on is killed; the run goes on, and no effect happens twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.acceptance.peers import Peer, serving_steps
from tests.acceptance.runs import SILENT, Runs, effect
from tests.conftest import Database, Spawn, until

SLOW = "df.sql($s$insert into public.effects select 'slow {n}' from pg_sleep(2)$s$)"
NODES = {
    "SQL": SLOW,
    "SLEEP": "df.sleep(2)",
    "SIGNAL": "df.wait_for_signal('go')",
    "HTTP": "df.http('{url}')",
    "JOIN": "df.join(" + SLOW + ", df.sleep(1))",
    "RACE": "df.race(df.wait_for_signal('go'), df.sleep(100))",
    "LOOP": "df.loop(df.seq(df.wait_for_signal('go'), df.break()))",
    "IF": "df.if('select true', df.sleep(2), 'select 1')",
    "WAIT_SCHEDULE": "df.race(df.wait_for_schedule('0 0 1 1 *'), df.wait_for_signal('go'))",
}


@pytest.fixture
async def peer(runs: Runs) -> AsyncIterator[tuple[Peer, str]]:
    """A step that answers the second call."""
    found = Peer()
    async with serving_steps(runs, step=found.second) as base:
        yield found, f"{base}/step"


async def test_an_engine_killed_in_every_kind_of_node_is_replaced(
    database: Database, spawn: Spawn, runs: Runs, peer: tuple[Peer, str]
) -> None:
    service, url = peer
    engine = spawn("engine", dsn=database.dsn)
    await until(runs.engines, what="the engine")
    started = {}
    for n, (kind, node) in enumerate(NODES.items()):
        node = node.replace("{url}", url).replace("{n}", str(n))
        graph = f"df.seq({effect(f'{n} before')}, df.seq({node}, {effect(f'{n} after')}))"
        started[kind] = await runs.start(graph)

    async def all_begun() -> bool:
        states = {await runs.begun(i, k) for k, i in started.items()}
        return service.calls > 0 and states == {True}

    await until(all_begun, what="every node having begun")
    engine.kill()
    await runs.conn.execute(SILENT)
    # raised while nobody is there to hear it
    for instance in started.values():
        await runs.conn.execute("select df.signal($1, 'go', '{}')", instance)
    spawn("engine", dsn=database.dsn)
    for kind, instance in started.items():
        assert await runs.ended(instance) == "completed", (kind, await runs.output(instance))
    twice = [f"{n} {when}" for n in range(len(NODES)) for when in ("after", "before")]
    assert await runs.effects() == sorted([*twice, "slow 0", "slow 4"])


async def test_a_run_cancelled_after_its_engines_death_stays_cancelled(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    engine = spawn("engine", dsn=database.dsn)
    instance = await runs.start(f"df.seq(df.sleep(2), {effect('after')})")
    await until(lambda: runs.held(instance), what="the claim")
    engine.kill()
    await runs.conn.execute("select df.cancel($1)", instance)
    await runs.conn.execute(SILENT)
    spawn("engine", dsn=database.dsn)
    assert await runs.ended(await runs.start("df.sleep(2)")) == "completed"
    assert await runs.status(instance) == "cancelled"
    assert await runs.effects() == []


TWO = f"df.seq({effect('one')}, {effect('two')})"
PAUSE_BETWEEN = f"df.seq({effect('one')}, df.seq(df.sleep(4), {effect('two')}))"
POINTS = {
    "before_statement:2": TWO,
    "after_statement:2": TWO,
    "before_park": PAUSE_BETWEEN,
    "after_park": PAUSE_BETWEEN,
}


@pytest.mark.parametrize("point", POINTS)
async def test_an_engine_killed_there_leaves_every_effect_once(
    database: Database, spawn: Spawn, runs: Runs, point: str
) -> None:
    engine = spawn("engine", dsn=database.dsn, PGFLOWS_CRASH_AT=point)
    instance = await runs.start(POINTS[point])
    engine.wait_for_crash()
    await runs.conn.execute(SILENT)
    spawn("engine", dsn=database.dsn)
    assert await runs.ended(instance) == "completed"
    assert await runs.effects() == ["one", "two"]
    assert await runs.conn.fetchval("select count(*) from df._work") == 0
