"""Runs that ended long ago are deleted, with the orchestrator's own instances."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg

from pgflows.maintenance.pruning import prune

Connection: TypeAlias = "asyncpg.Connection[Any]"
ENDED = (
    "insert into pgflows.instances (instance_id, workflow, version, input, started_by, status, "
    "created_at, ended_at) select pgflows.uuid7(), 'w', '1', '{}', 'me', 'completed', "
    "now() - $2::int * interval '1 day', now() - $2::int * interval '1 day' "
    "from generate_series(1, $1)"
)


async def test_pruning_deletes_in_bites_until_nothing_old_is_left(owner: Connection) -> None:
    await owner.execute(ENDED, 450, 31)
    await owner.execute(ENDED, 5, 29)
    old = await owner.fetchval("select df.start('select 1')")
    await owner.execute(
        "update df.instances set status = 'failed', created_at = '2001-01-01', "
        "updated_at = '2001-01-01' where id = $1",
        old,
    )
    await prune(owner, 30)
    assert await owner.fetchval("select count(*) from pgflows.instances") == 5
    assert await owner.fetchval("select count(*) from df.instances") == 0
