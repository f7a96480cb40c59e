"""What df.metrics and the counts by workflow tell, however much of it has been counted before."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable

import asyncpg

from pgflows.database.connections import Connection
from tests.conftest import Database, until

DAY = dt.timedelta(days=1)
AGED = "update df.instances set created_at = created_at - interval '1 minute'"
ENDED = "update df.instances set status = $2, updated_at = now() where id = $1"


async def metrics(conn: Connection) -> tuple[int, ...]:
    """Total, running, completed and failed instances."""
    row = await conn.fetchrow("select * from df.metrics()")
    assert row is not None
    return tuple(row)[:4]


async def counted(conn: Connection, count: str, source: str) -> None:
    """Counts until what began before this call is counted, but for the last ten seconds."""
    moved = "select until > $2::timestamptz from pgflows.counted_until where source = $1"
    before = await conn.fetchval("select clock_timestamp() - interval '11 seconds'")

    def check() -> Callable[[], Awaitable[object]]:
        async def once() -> object:
            await conn.execute(f"select {count}()")
            return await conn.fetchval(moved, source, before)

        return once

    await until(check())


async def test_metrics_are_the_same_before_and_after_instances_were_counted(
    user: Connection, owner: Connection
) -> None:
    assert await metrics(owner) == (0, 0, 0, 0)
    ids = [await user.fetchval("select df.start('select 1')") for _ in range(6)]
    for instance, status in zip(ids, ("completed", "completed", "failed", "running"), strict=False):
        await owner.execute(ENDED, instance, status)
    await owner.execute(AGED)
    assert await metrics(owner) == (6, 3, 2, 1)
    await counted(owner, "df._count", "df")
    assert await owner.fetchval("select sum(n) from pgflows.counted") == 3
    assert await metrics(owner) == (6, 3, 2, 1)
    await owner.execute(ENDED, ids[3], "failed")
    await user.execute("select df.cancel($1)", ids[4])
    await user.fetchval("select df.start('select 2')")
    assert await metrics(owner) == (7, 2, 2, 2)
    await counted(owner, "df._count", "df")
    assert await owner.fetchval("select array_agg(id) from pgflows.uncounted") == [ids[5]]
    assert await metrics(owner) == (7, 2, 2, 2)


async def test_metrics_go_down_with_what_is_pruned(user: Connection, owner: Connection) -> None:
    ids = [await user.fetchval("select df.start('select 1')") for _ in range(4)]
    await owner.execute(ENDED, ids[0], "completed")
    await owner.execute(AGED)
    await counted(owner, "df._count", "df")
    for instance in ids[:2]:  # one was counted with its end, one was not
        await owner.execute(ENDED, instance, "completed")
    await owner.execute("update df.instances set created_at = created_at - $1::interval * 2", DAY)
    await owner.execute("update df.instances set updated_at = created_at")
    assert await owner.fetchval("select df._prune($1, 100)", DAY) == 2
    assert await metrics(owner) == (2, 2, 0, 0)


async def test_a_start_in_a_transaction_that_stays_open_is_counted(
    user: Connection, owner: Connection, database: Database
) -> None:
    late = await asyncpg.connect(database.dsn)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("set local pg_durable.enable_superuser_instances = on")
    await late.fetchval("select df.start('select 1')")
    await late.execute(AGED)
    for _ in range(3):
        await owner.execute("select df._count()")
    begun = "select until = '-infinity' from pgflows.counted_until where source = 'df'"
    assert await owner.fetchval(begun) is True
    await transaction.commit()
    await late.close()
    assert await metrics(owner) == (1, 1, 0, 0)
    await counted(owner, "df._count", "df")
    assert await metrics(owner) == (1, 1, 0, 0)


async def test_counts_by_workflow_are_the_same_before_and_after_counting(
    owner: Connection,
) -> None:
    begun = (
        "insert into pgflows.instances (instance_id, workflow, version, status, input, started_by) "
        "select pgflows.first_id(now() - (2 - n * 0.001) * $3::interval), w, '1', s, '{}', 'x' "
        "from unnest($1::text[], $2::text[]) with ordinality x(w, s, n)"
    )
    workflows, statuses = ["a", "a", "b", "b"], ["completed", "failed", "completed", "running"]
    await owner.execute(begun, workflows, statuses, DAY)

    async def ended() -> list[tuple[str, str, int]]:
        found = json.loads(await owner.fetchval("select pgflows.ended_counts()"))
        return [(c["workflow"], c["status"], c["count"]) for c in found]

    expected = [("a", "completed", 1), ("a", "failed", 1), ("b", "completed", 1)]
    assert await ended() == expected
    await counted(owner, "pgflows._count", "pgflows")
    assert await owner.fetchval("select sum(n) from pgflows.counted") == 3
    assert await ended() == expected
    await owner.execute(
        "update pgflows.instances set status = 'completed' where status = 'running'"
    )
    assert await ended() == [*expected[:2], ("b", "completed", 2)]
    await counted(owner, "pgflows._count", "pgflows")
    assert await ended() == [*expected[:2], ("b", "completed", 2)]
    await owner.execute(
        "update pgflows.instances set ended_at = now() - $1::interval * 2, "
        "created_at = now() - $1::interval * 2 where workflow = 'b'",
        DAY,
    )
    assert await owner.fetchval("select pgflows.prune($1, 100)", DAY) == 2
    assert await ended() == expected[:2]
    assert await owner.fetchval("select count(*) from pgflows.uncounted") == 0
