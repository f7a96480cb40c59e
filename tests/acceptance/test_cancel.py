"""df.cancel, at every kind of node and while nobody holds the run: nothing follows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.acceptance.peers import Peer, serving_steps
from tests.acceptance.runs import Runs, effect
from tests.conftest import Database, Spawn, until
from tests.df.conftest import running_engine

SOON = 3.0  # generous: the promise is about a second, on a machine with nothing else to do
LONG = "df.sql($s$insert into public.effects select 'late' from pg_sleep(60)$s$)"
SLEEPING = (
    "select exists (select from pg_stat_activity where query like '%pg_sleep(60)%' "
    "and state = 'active' and pid <> pg_backend_pid())"
)


@pytest.fixture
async def peer(runs: Runs) -> AsyncIterator[tuple[Peer, str]]:
    found = Peer()
    async with serving_steps(runs, never=found.never, later=found.later) as url:
        yield found, url


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[None]:
    async with running_engine(database):
        yield


GRAPHS = {
    "sql": LONG,
    "sleep": "df.sleep(1)",
    "schedule": "df.wait_for_schedule('* * * * *')",
    "signal": "df.wait_for_signal('go')",
    "signal with a time-out": "df.wait_for_signal('go', 1)",
    "call": "df.http('{url}/never')",
    "retry": "df.http('{url}/later')",
    "join": "df.join({effect}, df.join3(df.sleep(1), {long}, df.http('{url}/never')))",
    "race": "df.race({long}, df.sleep(1))",
    "loop": "df.loop(df.seq(df.wait_for_signal('go', 1), {effect}))",
    "nested loop": "df.seq({effect}, df.loop(df.loop(df.sleep(1), 'select true'), 'select true'))",
    "if": "df.if('select true', {long}, {effect})",
    "a parked sleep": "df.sleep(100)",
    "a parked signal": "df.wait_for_signal('go', 100)",
    "a parked race": "df.race(df.sleep(100), df.wait_for_signal('go'))",
}


@pytest.mark.parametrize("kind", GRAPHS)
async def test_a_cancelled_run_lets_go_and_nothing_follows(
    runs: Runs, engine: None, peer: tuple[Peer, str], kind: str
) -> None:
    service, url = peer
    first = GRAPHS[kind].replace("{url}", url).replace("{long}", LONG)
    first = first.replace("{effect}", effect("inside"))
    instance = await runs.start(f"df.seq({first}, {effect('after')})")
    await until(reached(runs, service, instance, kind, first), what="the node")
    before = await runs.effects()

    await runs.conn.execute("select df.cancel($1, 'enough')", instance)

    assert await runs.status(instance) == "cancelled"
    assert await runs.output(instance) == "canceled: enough"
    await until(lambda: at_rest(runs, service), SOON, "everything of it being over")
    if "(1)" in first or " 1)" in first or "later" in first:
        await let_pass(runs)
    assert await runs.effects() == before
    assert await runs.status(instance) == "cancelled"
    await runs.conn.execute("select df.signal($1, 'go', '{}')", instance)
    assert await runs.conn.fetchval("select count(*) from df._signals") == 0


def reached(
    runs: Runs, service: Peer, instance: str, kind: str, first: str
) -> Callable[[], Awaitable[Any]]:
    """The condition that the run is at the node that the case is about."""

    async def look() -> Any:
        if kind == "join" and not await runs.effects():
            return False  # the branch beside has not had its effect yet
        if "never" in first or "later" in first:
            return service.calls
        if LONG in first:
            return await runs.conn.fetchval(SLEEPING)
        if "parked" in kind:
            return await runs.parked(instance)
        return await runs.status(instance) == "running"

    return look


async def at_rest(runs: Runs, service: Peer) -> bool:
    """No statement runs, no call is open, no row of df._work is left."""
    return not (
        service.open
        or await runs.conn.fetchval(SLEEPING)
        or await runs.conn.fetchval("select exists (select from df._work)")
    )


async def let_pass(runs: Runs) -> None:
    """A run that began after the cancel has slept for as long as the cancelled one would have."""
    assert await runs.ended(await runs.start("df.sleep(1)")) == "completed"


async def test_many_runs_cancelled_at_once_leave_the_engine_working(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    engine = spawn("engine", dsn=database.dsn)
    await until(runs.engines, what="the engine")
    waits = f"df.seq(df.race(df.sleep(1), df.wait_for_signal('go')), {effect('after')})"
    start = f"select array_agg(df.start({waits})) from generate_series(1, 200)"  # noqa: S608
    started = await runs.conn.fetchval(start)
    await runs.conn.execute("select df.cancel(x) from unnest($1::text[]) x", started)
    assert await runs.states() == {"cancelled": 200}
    await let_pass(runs)
    assert await runs.effects() == []
    assert engine.output().count(" runs\n") == 1


async def test_a_run_cancelled_before_anybody_took_it_never_runs(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    instance = await runs.start(effect("never"))
    await runs.conn.execute("select df.cancel($1)", instance)
    spawn("engine", dsn=database.dsn)
    assert await runs.ended(await runs.start("'select 1'")) == "completed"
    assert await runs.status(instance) == "cancelled"
    assert await runs.effects() == []
