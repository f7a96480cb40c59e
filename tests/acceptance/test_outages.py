"""Engines, services and PostgreSQL that go away in the middle of runs."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import asyncpg
import httpx
import pytest

from pgflows import headers
from pgflows.database.embedded import EmbeddedServer
from tests.acceptance.conftest import EFFECTS, Deployment
from tests.conftest import Spawn, free_port, until

SIGNED = (
    "select r.df_id, s.step, s.step_key, s.seq, s.input::text as body, pgflows._sign("
    "k.key_id, k.inner_pad, k.outer_pad, r.df_id, s.step, s.step_key, s.seq, s.input::text) "
    "as signature from pgflows.step_runs s "
    "join pgflows.df_runs r on r.instance_id = s.instance_id "
    "join pgflows.signing_keys k on k.key_id = s.key_id "
    "where s.instance_id = $1 and s.step_key = $2"
)


async def push(
    deployment: Deployment, instance: Any, step_key: str, times: int = 1
) -> list[httpx.Response]:
    """The very request that the engine makes, so many times at once."""
    [row] = await deployment.conn.fetch(SIGNED, instance, step_key)
    sent = {
        "content-type": "application/json",
        headers.INSTANCE: row["df_id"],
        headers.STEP_KEY: row["step_key"],
        headers.SEQ: str(row["seq"]),
        headers.SIGNATURE: row["signature"],
    }
    async with httpx.AsyncClient(timeout=30) as http:
        url = f"http://127.0.0.1:{deployment.port}/steps/{row['step']}"
        calls = (http.post(url, content=row["body"].encode(), headers=sent) for _ in range(times))
        return await asyncio.gather(*calls)


async def all_end(deployment: Deployment, instances: list[Any]) -> set[str]:
    return {await deployment.ended(i, 40) for i in instances}


async def test_two_engines_and_one_is_killed(deployment: Deployment) -> None:
    deployment.service()
    one, _ = deployment.engine(), deployment.engine()
    instances = [await deployment.start(seconds=0.2) for _ in range(40)]
    await until(lambda: deployment.effects(instances[5]), what="work in progress")
    one.kill()
    assert await all_end(deployment, instances) == {"completed"}
    for instance in instances:
        await deployment.assert_recorded_once(instance)


async def test_an_engine_that_stood_still_cannot_write(deployment: Deployment) -> None:
    deployment.service()
    engine = deployment.engine()
    instance = await deployment.start(seconds=1)
    await until(lambda: deployment.effects(instance, "second#1"), what="the second step")
    assert engine.popen is not None
    engine.popen.send_signal(signal.SIGSTOP)
    deployment.engine()
    assert await deployment.ended(instance) == "completed"
    before = await deployment.conn.fetch("select * from df.nodes order by id")
    engine.popen.send_signal(signal.SIGCONT)
    other = await deployment.start()
    assert await deployment.ended(other) == "completed"
    ids = {r["instance_id"] for r in before}
    after = await deployment.conn.fetch(
        "select * from df.nodes where instance_id = any ($1) order by id", list(ids)
    )
    assert after == before
    await deployment.assert_recorded_once(instance)


async def test_the_service_is_away_for_a_while(deployment: Deployment) -> None:
    service = deployment.service()
    deployment.engine()
    done = await deployment.start()
    assert await deployment.ended(done) == "completed"
    service.kill()
    instance = await deployment.start()
    await until(lambda: _called(deployment), what="a call into the void")
    assert await deployment.status(instance) in ("pending", "running")
    deployment.service()
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)


async def _called(deployment: Deployment) -> Any:
    query = "select 1 from pgflows.step_runs where status = 'requested'"
    return await deployment.conn.fetchval(query)


ALL_PARKED = "select count(*) > 0 and bool_and(owner is null) from df._work"


@pytest.mark.slow
async def test_the_service_is_away_until_every_run_has_left_memory(deployment: Deployment) -> None:
    service = deployment.service()
    deployment.engine()
    instances = [await deployment.start(seconds=0.3) for _ in range(10)]
    await until(lambda: deployment.effects(instances[0], "second#1"), what="work in progress")
    service.kill()
    await until(lambda: deployment.conn.fetchval(ALL_PARKED), 40, what="no run in memory")
    deployment.service()
    assert await all_end(deployment, instances) == {"completed"}


async def test_a_second_push_of_a_finished_step_answers_the_same(deployment: Deployment) -> None:
    deployment.service()
    deployment.engine()
    instance = await deployment.start("same")
    assert await deployment.ended(instance) == "completed"
    answers = await push(deployment, instance, "third#1", times=2)
    assert [a.status_code for a in answers] == [200, 200]
    assert {a.json()["name"] for a in answers} == {"same!"}
    assert await deployment.effects(instance, "third#1") == 1


async def test_a_second_push_of_a_running_step_joins_it(deployment: Deployment) -> None:
    deployment.service()
    deployment.engine()
    instance = await deployment.start("joined", seconds=1)
    await until(lambda: deployment.effects(instance, "second#1"), what="the second step")
    answers = await push(deployment, instance, "second#1", times=3)
    assert [a.status_code for a in answers] == [200] * 3
    assert await deployment.ended(instance) == "completed"
    assert await deployment.effects(instance, "second#1") == 1


async def test_cancel_ends_a_run_during_a_call(deployment: Deployment) -> None:
    service = deployment.service()
    deployment.engine()
    instance = await deployment.start("slow", seconds=20)
    await until(lambda: deployment.effects(instance, "second#1"), what="the second step")
    began = time.monotonic()
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{service.url}/instances/{instance}/cancel", json={"reason": "enough"}
        )
    assert answer.json()["status"] == "cancelled"
    gone = "select not exists (select from df._work)"
    await until(lambda: deployment.conn.fetchval(gone), 2, "the engine letting go")
    assert time.monotonic() - began < 5
    row = "select status from pgflows.step_runs where step_key = 'second#1' and instance_id = $1"
    assert await deployment.conn.fetchval(row, instance) == "cancelled"
    service.kill()
    deployment.service()
    assert [a.status_code for a in await push(deployment, instance, "second#1")] == [410]
    assert await deployment.effects(instance, "third#1") == 0


async def test_a_failed_run_can_be_revived(deployment: Deployment) -> None:
    deployment.service()
    deployment.engine()
    instance = await deployment.start("thing", workflow="failing")
    assert await deployment.ended(instance) == "failed"
    error = json.loads(
        await deployment.conn.fetchval(
            "select error from pgflows.instances where instance_id = $1", instance
        )
    )
    assert (error["type"], error["step_key"]) == ("LookupError", "broken#1")
    assert await deployment.effects(instance, "broken#1") == 2
    await deployment.conn.fetchval("select pgflows.revive($1)", instance)
    assert await deployment.ended(instance) == "failed"
    assert await deployment.effects(instance, "first#1") == 1
    runs = "select count(*) from pgflows.df_runs where instance_id = $1"
    assert await deployment.conn.fetchval(runs, instance) == 2


async def test_postgresql_crashes_in_the_middle(own_server: EmbeddedServer, spawn: Spawn) -> None:
    dsn = own_server.socket_dsn()
    conn = await asyncpg.connect(dsn)
    await conn.execute(EFFECTS)
    deployment = Deployment(spawn, dsn, conn, free_port())
    deployment.service()
    deployment.engine()
    instances = [await deployment.start(seconds=0.5) for _ in range(30)]
    await until(lambda: deployment.effects(instances[3], "second#1"), what="work in progress")
    await conn.close()
    await asyncio.to_thread(own_server.restart, "immediate")
    deployment.conn = conn = await asyncpg.connect(dsn)
    assert await all_end(deployment, instances) == {"completed"}
    for instance in instances:
        await deployment.assert_recorded_once(instance)
    await conn.close()
