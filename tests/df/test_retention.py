"""What ended long ago is deleted, a few at a time; nothing else is."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[Any]"
MONTH = dt.timedelta(days=30)
OLD = "created_at = '2001-01-01', updated_at = '2001-01-01'"
END = f"update df.instances set status = $1, {OLD} where id = $2"  # noqa: S608 - constants
AGE = "update df.instances set created_at = '2001-01-01' where id = $1"


async def test_old_terminal_instances_go_with_all_their_rows(owner: Connection) -> None:
    ids = [await owner.fetchval("select df.start('select 1')") for _ in range(5)]
    for status, instance in zip(("completed", "failed", "cancelled"), ids, strict=False):
        await owner.execute(END, status, instance)
    await owner.execute(AGE, ids[3])

    assert await owner.fetchval("select df._prune($1, 2)", MONTH) == 2
    assert await owner.fetchval("select df._prune($1, 2)", MONTH) == 1
    assert await owner.fetchval("select df._prune($1, 2)", MONTH) == 0

    left = {r["id"] for r in await owner.fetch("select id from df.instances")}
    assert left == set(ids[3:])
    nodes = {r["instance_id"] for r in await owner.fetch("select instance_id from df.nodes")}
    assert nodes == left


async def test_it_does_not_matter_how_many_there_are(owner: Connection) -> None:
    await owner.execute(
        "insert into df.instances (id, root_node, status, submitted_by) "
        "select lpad(to_hex(n), 8, '0'), '00000000', 'completed', current_user::regrole "
        "from generate_series(1, 10001) n"
    )
    assert await owner.fetchval("select df._prune($1, 1000)", MONTH) == 0
    assert await owner.fetchval("select count(*) from df.instances") == 10001


async def test_a_row_that_somebody_holds_is_left_for_later(
    owner: Connection, database: Any
) -> None:
    instance = await owner.fetchval("select df.start('select 1')")
    await owner.execute(END, "failed", instance)
    other = await asyncpg.connect(database.dsn)
    async with other.transaction():
        await other.execute("select 1 from df.instances where id = $1 for update", instance)
        assert await owner.fetchval("select df._prune($1, 10)", MONTH) == 0
    await other.close()
    assert await owner.fetchval("select df._prune($1, 10)", MONTH) == 1
