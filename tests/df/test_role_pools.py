"""Node connections: ten a role, the others queue, idle ones are closed."""

from __future__ import annotations

import asyncpg
import pytest

from pgflows.database.connections import Connection
from pgflows.engine.sql import pools
from tests.conftest import Database, until
from tests.df.conftest import OTHER, USER, running_engine

SESSIONS = (
    "select count(*) from pg_stat_activity "
    "where application_name = 'pgflows node' and datname = current_database() and usename = $1"
)
HELD = "select pg_advisory_xact_lock_shared(7)"


async def start(role: Connection, text: str, times: int = 1) -> list[str]:
    return [await role.fetchval("select df.start($1)", text) for _ in range(times)]


async def statuses(role: Connection, instances: list[str]) -> list[str]:
    return [await role.fetchval("select df.await_instance($1)", i) for i in instances]


async def test_ten_nodes_of_a_role_run_at_once_and_the_others_wait_for_a_place(
    database: Database, user: Connection, other: Connection, admin: Connection
) -> None:
    await admin.execute("select pg_advisory_lock(7)")

    async def waiting() -> bool:
        locks = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        return bool(await admin.fetchval(locks) == 10)

    async with running_engine(database):
        held = await start(user, HELD, 80)
        await until(waiting)
        # another role has places of its own, and those who wait do not keep its runs out
        assert await statuses(other, await start(other, "select 1")) == ["completed"]
        assert await admin.fetchval(SESSIONS, USER) == 10
        assert await admin.fetchval(SESSIONS, OTHER) == 1
        await admin.execute("select pg_advisory_unlock(7)")
        assert await statuses(user, held) == ["completed"] * 80
        assert await admin.fetchval(SESSIONS, USER) <= 10


async def test_who_waits_too_long_for_a_place_fails_and_is_told_why(
    database: Database, user: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "QUEUE_SECONDS", 0.5)
    await admin.execute("select pg_advisory_lock(7)")
    async with running_engine(database):
        held = await start(user, HELD, 11)

        async def failed() -> list[asyncpg.Record]:
            return await user.fetch("select id from df.instances where status = 'failed'")

        [late] = await until(failed)
        await admin.execute("select pg_advisory_unlock(7)")
        assert sorted(await statuses(user, held)) == ["completed"] * 10 + ["failed"]
    output = await user.fetchval("select output from df.instance_info($1)", late["id"])
    assert f"no connection for role {USER} became free within 0.5 s (10 are in use)" in output


async def test_connections_that_nobody_uses_are_closed(
    database: Database, user: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.2)

    async def none_left() -> bool:
        return bool(await admin.fetchval(SESSIONS, USER) == 0)

    async with running_engine(database):
        assert await statuses(user, await start(user, "select 1", 5)) == ["completed"] * 5
        await until(none_left)
        assert await statuses(user, await start(user, "select 1")) == ["completed"]
