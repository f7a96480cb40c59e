"""One process does the chores; when it dies in the middle of one, another does them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest

from pgflows.maintenance.leader import Chore, keep
from tests.conftest import Database, Process, Spawn, until
from tests.maintenance.conftest import Beside

Connection: TypeAlias = "asyncpg.Connection[Any]"
END = (
    "update pgflows.instances set status = 'completed', created_at = '2001-01-01', "
    "ended_at = '2001-01-01' where instance_id = $1"
)
OLD = (
    "insert into pgflows.instances (instance_id, workflow, version, input, started_by) "
    "values (pgflows.uuid7(), 'w', '1', '{}', 'me') returning instance_id"
)
LEADER = (
    "select l.pid from pg_locks l join pg_database d on d.oid = l.database "
    "where d.datname = current_database() "
    "and l.locktype = 'advisory' and l.classid = 1885824887 and l.granted"
)
CUT = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where pid = $1"


class Candidate:
    """Takes part in maintenance with one chore, and counts how often that was begun and ended."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.begun = self.ended = 0
        self._work = work

    async def chore(self, conn: Any) -> None:
        self.begun += 1
        await self._work(conn)
        self.ended += 1

    @asynccontextmanager
    async def taking_part(self, dsn: str) -> AsyncIterator[Candidate]:
        task = asyncio.create_task(keep(dsn, [Chore("work", 0.05, self.chore)]))
        yield self
        task.cancel()
        await asyncio.wait([task])


async def true(found: Any) -> Any:
    return found


async def test_leader_alone_does_the_chores(database: Database) -> None:
    first, second = Candidate(lambda c: c.execute("select")), Candidate(true)
    async with first.taking_part(database.dsn):
        await until(lambda: true(first.ended))
        async with second.taking_part(database.dsn):
            done = first.ended
            await until(lambda: true(first.ended > done + 5))
    assert second.begun == 0


async def test_leader_that_dies_in_the_middle_of_a_chore_is_followed(
    database: Database, owner: Connection
) -> None:
    first = Candidate(lambda c: c.execute("select pg_sleep(60)"))
    second = Candidate(lambda c: c.execute("select"))
    async with first.taking_part(database.dsn):
        await until(lambda: true(first.begun))
        async with second.taking_part(database.dsn):
            await owner.fetch(CUT, await owner.fetchval(LEADER))
            await until(lambda: true(second.ended or first.begun > 1))
    assert first.ended == 0


async def test_leader_goes_on_after_a_chore_that_failed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    candidate = Candidate(lambda c: c.execute("select 1/0" if candidate.begun == 1 else "select"))
    async with candidate.taking_part(database.dsn):
        await until(lambda: true(candidate.ended))
    assert [r.getMessage() for r in caplog.records if r.exc_info] == [
        "work failed; it is tried again"
    ]


@pytest.mark.slow
async def test_leader_killed_is_followed_by_another_engine_process(
    database: Database, owner: Connection, spawn: Spawn
) -> None:
    async def leads(process: Process) -> bool:
        return "leads maintenance" in process.output()

    first = spawn("engine", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
    await until(lambda: leads(first))
    second = spawn("engine", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
    await until(lambda: owner.fetchval("select pgflows.live_engines() = 2"))
    instance = await owner.fetchval(OLD)
    await owner.execute(END, instance)
    first.kill()
    await until(lambda: leads(second))
    gone = "select not exists (select from pgflows.instances where instance_id = $1)"
    assert await until(lambda: owner.fetchval(gone, instance), what="the pruning")


@pytest.mark.slow
async def test_leader_killed_between_two_runs_to_revive_is_followed_by_another(
    beside_stand_in: Beside, spawn: Spawn
) -> None:
    beside = beside_stand_in
    runs = [await beside.start() for _ in range(2)]
    for run in runs:
        await beside.fail_call(run, seconds_ago=60)
    started = "select count(*) from pgflows.df_runs where reason is not null"
    first = spawn("engine", dsn=beside.database.dsn, PGFLOWS_CRASH_AT="before_judge:2")
    first.wait_for_crash()
    assert await beside.owner.fetchval(started) == 1
    second = spawn("engine", dsn=beside.database.dsn)
    await until(lambda: beside.owner.fetchval(f"{started} having count(*) = 2"))
    assert "no engine is opened, only maintenance" in second.output()
    assert [len(await beside.runs(run)) for run in runs] == [2, 2]
