"""An instance that an engine has in hand is running, wherever its status is shown."""

from __future__ import annotations

import uuid

import pytest

from pgflows.database.connections import Connection
from tests.conftest import Database


async def listed(conn: Connection, status: str) -> list[str]:
    plain = await conn.fetch("select * from df.list_instances($1)", status)
    paged = await conn.fetch("select * from df.list_instances($1, 100, null)", status)
    assert [r["instance_id"] for r in plain] == [r["instance_id"] for r in paged]
    assert {r["status"] for r in (*plain, *paged)} <= {status}
    return [r["instance_id"] for r in plain]


@pytest.fixture
async def claimed(user: Connection, owner: Connection) -> str:
    """An instance that an engine has claimed, and written nothing of; another waits behind it."""
    instance: str = await user.fetchval("select df.start('select 1', 'first')")
    engine = uuid.uuid4()
    await owner.execute("select df._open_engine($1)", engine)
    assert len(await owner.fetch("select * from df._claim($1, 1)", engine)) == 1
    return instance


async def test_a_claimed_instance_is_running(user: Connection, claimed: str) -> None:
    assert await user.fetchval("select df.status($1)", claimed) == "running"
    info = await user.fetchrow("select * from df.instance_info($1)", claimed)
    assert info is not None
    assert info["status"] == "running"
    [execution] = await user.fetch("select * from df.instance_executions($1)", claimed)
    assert execution["status"] == "Running"
    assert "Status:   ⏳ Running" in await user.fetchval("select df.explain($1)", claimed)


async def test_lists_of_running_and_pending_instances_count_a_claim(
    user: Connection, claimed: str
) -> None:
    waiting = await user.fetchval("select df.start('select 1', 'second')")
    assert await listed(user, "running") == [claimed]
    assert await listed(user, "pending") == [waiting]
    everything = await user.fetch("select instance_id, status from df.list_instances()")
    assert [tuple(r) for r in everything] == [(waiting, "pending"), (claimed, "running")]


async def test_a_list_of_running_instances_goes_on_page_by_page(
    user: Connection, owner: Connection
) -> None:
    started = [await user.fetchval("select df.start('select 1')") for _ in range(7)]
    engine = uuid.uuid4()
    await owner.execute("select df._open_engine($1)", engine)
    await owner.fetch("select * from df._claim($1, 5)", engine)
    await owner.execute("update df.instances set status = 'running' where id = $1", started[2])
    seen: list[str] = []
    cursor = None
    while True:
        page = await user.fetch("select * from df.list_instances('running', 2, null, $1)", cursor)
        seen += [r["instance_id"] for r in page]
        cursor = page[0]["next_cursor"]
        if cursor is None:
            break
    assert seen == started[:5][::-1]


async def test_an_instance_that_was_running_is_not_pending_again(
    user: Connection, owner: Connection, claimed: str
) -> None:
    await owner.execute("select df._free(array(select epoch_id from df._worker_epoch), true)")
    assert await owner.fetchval("select owner from df._work") is None
    assert await user.fetchval("select df.status($1)", claimed) == "running"


async def test_what_an_engine_has_in_hand_of_others_is_not_told(
    database: Database, other: Connection, claimed: str
) -> None:
    assert await other.fetch("select instance_id, owner from df._work") == []
    assert await listed(other, "running") == []
    assert await other.fetchval("select df.status($1)", claimed) is None
