"""Several engines on one database: who runs what, and what happens when one stands still."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.peers import Peer, serving_steps
from tests.acceptance.runs import Runs, effect
from tests.conftest import Database, Process, Spawn, until

HELD = "select count(*) from df._work where owner is not null group by owner order by 1"
BLOCKED = "df.sql('select 1 as n from (select pg_advisory_xact_lock_shared(77)) held')"
MANY = (
    "select df.start(df.seq(df.wait_for_signal('go', 2), 'select 1')) from generate_series(1, 600)"
)
TOOK = "select extract(epoch from completed_at - created_at)::float from df.instances where id = $1"
SKEWED = """
import time
real = time.time
time.time = lambda: real() + {offset}
from pgflows.cli import main
main()
"""


@pytest.fixture
async def slow(runs: Runs) -> AsyncIterator[tuple[Peer, str]]:
    """A step that answers when it is told to."""
    found = Peer()
    async with serving_steps(runs, slow=found.when_told) as base:
        yield found, f"{base}/slow"
        found.told.set()


def stop(process: Process) -> None:
    assert process.popen is not None
    process.popen.send_signal(signal.SIGSTOP)


def go_on(process: Process) -> None:
    assert process.popen is not None
    process.popen.send_signal(signal.SIGCONT)


async def several(runs: Runs, count: int) -> None:
    async def all_there() -> bool:
        return await runs.engines() == count

    await until(all_there, what=f"{count} engines")


async def shares(runs: Runs) -> list[int]:
    """How many runs each engine holds."""
    return [r[0] for r in await runs.conn.fetch(HELD)]


async def test_a_full_engine_takes_no_more_and_others_do(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    """Each run holds a place until the test lets go of a lock."""
    await runs.conn.execute("select pg_advisory_lock(77)")
    spawn("engine", dsn=database.dsn, PGFLOWS_ENGINE_INSTANCES="10")
    await several(runs, 1)
    started = [await runs.start(BLOCKED) for _ in range(40)]

    async def full() -> bool:
        return await shares(runs) == [10]

    await until(full, what="a full engine")
    for _ in range(2):
        spawn("engine", dsn=database.dsn, PGFLOWS_ENGINE_INSTANCES="10")

    async def all_full() -> bool:
        found = await shares(runs)
        assert max(found, default=0) <= 10
        return found == [10, 10, 10]

    await until(all_full, what="three full engines")
    await runs.conn.execute("select pg_advisory_unlock(77)")
    await runs.all_ended()
    assert await runs.states() == {"completed": len(started)}


async def test_engines_share_what_there_is(database: Database, spawn: Spawn, runs: Runs) -> None:
    for _ in range(3):
        spawn("engine", dsn=database.dsn)
    await several(runs, 3)
    seen: list[list[int]] = []

    async def everything() -> bool:
        seen.append(await shares(runs))
        return sum(seen[-1]) == 600

    # more than one engine claims at once
    await runs.conn.execute(MANY)
    await until(everything, what="all runs being claimed")
    assert len(seen[-1]) == 3, seen[-1]
    await runs.all_ended()
    assert await runs.states() == {"completed": 600}


async def test_a_row_says_that_an_engine_lives(
    database: Database, spawn: Spawn, runs: Runs
) -> None:
    one, two, three = (spawn("engine", dsn=database.dsn) for _ in range(3))
    await several(runs, 3)
    one.kill(signal.SIGTERM)
    assert await runs.engines() == 2
    two.kill()
    await several(runs, 1)
    three.kill(signal.SIGTERM)
    assert await runs.engines() == 0


@pytest.mark.slow
async def test_a_slow_service_slows_its_own_runs_only(
    database: Database, spawn: Spawn, runs: Runs, slow: tuple[Peer, str]
) -> None:
    service, url = slow
    engine = spawn("engine", dsn=database.dsn, PGFLOWS_ENGINE_INSTANCES="110")
    waiting = [await runs.start(f"df.http('{url}')") for _ in range(130)]

    async def busy() -> bool:
        return service.calls >= 90

    await until(busy, what="many calls")
    for n in range(20):
        instance = await runs.start(df_sequence(n))
        assert await runs.ended(instance) == "completed", engine.output()
    assert await runs.status(waiting[0]) in ("pending", "running")
    service.told.set()
    for instance in waiting:
        assert await runs.ended(instance) == "completed"


def df_sequence(n: int) -> str:
    return f"df.seq({effect(f'{n}a')}, {effect(f'{n}b')})"


STATEMENT = "df.sql($s$insert into public.effects select 'effect' from pg_sleep({seconds})$s$)"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 5])
async def test_an_engine_that_stood_still_writes_nothing_when_it_goes_on(
    database: Database, spawn: Spawn, runs: Runs, seconds: float
) -> None:
    """Its statement ends on the server before, or after, another engine takes the run over."""
    engine = spawn("engine", dsn=database.dsn)
    statement = STATEMENT.format(seconds=seconds)
    instance = await runs.start(f"df.seq({effect('before')}, df.seq({statement}, {effect('end')}))")
    running = "select 1 from pg_stat_activity where query like 'insert%pg_sleep%'"
    await until(lambda: runs.conn.fetchval(running), what="the statement")
    stop(engine)
    other = spawn("engine", dsn=database.dsn)
    assert await runs.ended(instance) == "completed", other.output()
    nodes = await runs.conn.fetch("select * from df.nodes where instance_id = $1", instance)
    go_on(engine)

    async def anew() -> bool:
        return engine.output().count(" runs\n") == 2

    await until(anew, what="another session of the engine that stood still")
    await several(runs, 2)
    assert await runs.effects() == ["before", "effect", "end"]
    again = await runs.conn.fetch("select * from df.nodes where instance_id = $1", instance)
    assert again == nodes
    other.kill(signal.SIGTERM)
    assert await runs.ended(await runs.start(effect("later"))) == "completed"


@pytest.mark.slow
async def test_an_engines_clock_does_not_matter(
    database: Database, spawn: Spawn, runs: Runs, tmp_path: Path
) -> None:
    """One engine lives a day behind, one a day ahead."""
    environment = spawn("check").environment | {"PGFLOWS_DSN": database.dsn}
    engines = []
    for n, offset in enumerate((-86400, 86400)):
        script = tmp_path / f"skewed-{n}.py"
        script.write_text(SKEWED.format(offset=offset))
        command = (sys.executable, str(script), "engine")
        engines.append(await asyncio.create_subprocess_exec(*command, env=environment))
    try:
        await several(runs, 2)
        schedules = [await runs.start("df.wait_for_schedule('* * * * *')") for _ in range(4)]
        for schedule in schedules:
            await until(partial(deadline, runs, schedule), what="the deadline of the schedule")
        flows = {
            await runs.start(flow): seconds
            for flow, seconds in (
                ("df.seq(df.sleep(1), 'select 1')", 1),
                ("df.seq(df.sleep(4), 'select 1')", 4),
                ("df.wait_for_signal('never', 1)", 1),
                ("df.race(df.wait_for_schedule('0 0 1 1 *'), df.sleep(1))", 1),
            )
            for _ in range(4)
        }
        for instance, seconds in flows.items():
            assert await runs.ended(instance) == "completed"
            assert await runs.conn.fetchval(TOOK, instance) >= seconds
    finally:
        for engine in engines:
            engine.terminate()
            await engine.wait()


async def deadline(runs: Runs, schedule: str) -> bool:
    """True when the schedule's next minute, by the database's clock, is what the run waits for."""
    row = await runs.conn.fetchrow(
        "select wake_at, wake_at > clock_timestamp() - interval '1 s' "
        "and wake_at <= clock_timestamp() + interval '1 min' as good, "
        "wake_at - date_trunc('minute', wake_at) < interval '1 s' as whole from df._work "
        "where instance_id = $1 and owner is null",
        schedule,
    )
    if row is None:
        return await runs.status(schedule) == "completed"
    return bool(row["good"] and row["whole"])
