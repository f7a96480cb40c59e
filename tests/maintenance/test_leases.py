"""Leases of workers: who is alive, who is dead, and whose `df` it is."""

from __future__ import annotations

import uuid
from typing import Any, TypeAlias

import asyncpg

from pgflows.database.orchestrator import df_is_ours
from tests.conftest import until

Connection: TypeAlias = "asyncpg.Connection[Any]"
OPEN, CLOSE = "select pgflows.worker_open($1, $2)", "select pgflows.worker_close($1)"
BEAT = "select alive, dead from pgflows.worker_beat($1)"
LIMIT = "update pgflows.settings set value = $1 where name = 'dead_after_seconds'"


async def test_worker_that_is_silent_is_dead_after_the_limit_that_is_set(owner: Connection) -> None:
    await owner.execute(LIMIT, "0.2")
    silent, other, beating = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    await owner.execute(OPEN, silent, "replay")
    await owner.execute(OPEN, other, "engine")
    await owner.execute(OPEN, beating, "replay")

    async def dead() -> Any:
        row = await owner.fetchrow(BEAT, beating)
        assert row is not None
        assert row["alive"]
        return row["dead"]

    assert await until(dead) == [silent]
    await owner.execute(CLOSE, silent)
    assert await dead() is None


async def test_worker_whose_lease_is_closed_hears_that_it_is_not_alive(owner: Connection) -> None:
    worker = uuid.uuid4()
    await owner.execute(OPEN, worker, "engine")
    await owner.execute(CLOSE, worker)
    assert await owner.fetchval("select alive from pgflows.worker_beat($1)", worker) is False


async def test_engines_are_shown_as_the_contract_names_them(owner: Connection) -> None:
    engine, replay = uuid.uuid4(), uuid.uuid4()
    await owner.execute("select df._open_engine($1)", engine)
    await owner.execute(OPEN, replay, "replay")
    rows = await owner.fetch("select epoch_id, started_at <= last_seen_at from df._worker_epoch")
    assert [tuple(r) for r in rows] == [(engine, True)]
    assert await owner.fetchval("select pgflows.live_engines()") == 1


async def test_question_whose_df_it_is_has_one_answer(owner: Connection) -> None:
    assert await df_is_ours(owner) is True
    assert await owner.fetchval("select pgflows.df_is_ours()") is True
