"""Runs beside the extension: what the orchestrator loses is found, and started again or failed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from pgflows.config import Settings
from pgflows.database.migrations import migrate
from tests.acceptance.conftest import EFFECTS, Deployment
from tests.conftest import Database, Process, Spawn, free_port, until
from tests.database.conftest import program

SECONDS = 90  # the extension takes some 3 s for three steps, and looks for work every few seconds


@dataclass
class Home(Deployment):
    """A deployment whose orchestrator is the extension."""

    database: Database

    def serve(self, **environment: str) -> Process:
        return self._spawn(
            "serve", PGFLOWS_RUN_DSN=self.database.run_dsn, **environment
        ).wait_until_ready()

    async def ended(self, instance: Any, seconds: float = SECONDS) -> str:
        return await super().ended(instance, seconds)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.get(f"http://127.0.0.1:{self.port}{path}")

    async def ask(self, path: str) -> Any:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def home(beside: Database, spawn: Spawn) -> AsyncIterator[Home]:
    await migrate(beside.dsn, Settings(run_dsn=beside.run_dsn))
    conn = await asyncpg.connect(beside.dsn)
    admin = await asyncpg.connect(beside.admin_dsn)
    await admin.execute("drop table if exists public.effects")
    await admin.execute(EFFECTS)
    await admin.execute("grant all on public.effects to public")
    await admin.close()
    yield Home(spawn, beside.dsn, conn, free_port(), beside)
    await conn.close()


async def test_run_beside_the_extension_completes_with_its_history(home: Home) -> None:
    service = home.serve()
    instance = await home.start()
    assert await home.ended(instance) == "completed"

    async def whole() -> Any:
        found = await home.ask(f"/instances/{instance}/history")
        return found if {n["status"] for n in found["nodes"]} == {"completed"} else None

    history = await until(whole, 30, "the completion of all nodes")
    assert [s["status"] for s in history["steps"]] == ["completed"] * 3
    assert history["output"] == {"name": "run!", "seconds": 0}
    assert {n["node_type"] for n in history["nodes"]} == {"SQL", "HTTP", "THEN"}
    assert [e["status"] for e in history["executions"]] == ["Completed"]
    assert "Traceback" not in service.output()


async def test_service_beside_the_extension_says_that_it_runs_no_engine(home: Home) -> None:
    service = home.serve()

    async def ready() -> bool:
        return (await home.get("/readyz")).status_code == 200

    await until(ready, 20, "readiness")
    stats = await home.ask("/stats")
    assert stats["engine"]["kind"] == "extension"
    assert stats["engine"]["live"] == 1
    assert stats["df"] is not None
    assert "pgflows_engines_live 1.0" in (await home.get("/metrics")).text
    assert "pg_durable" in service.output()
    assert "Traceback" not in service.output()


async def test_engine_command_beside_the_extension_runs_maintenance(home: Home) -> None:
    home.service(PGFLOWS_RUN_DSN=home.database.run_dsn)
    engine = home.engine(PGFLOWS_RUN_DSN=home.database.run_dsn)
    instance = await home.start(workflow="failing")
    assert await home.ended(instance) == "failed"

    async def said() -> bool:
        return "pg_durable" in engine.output()

    await until(said, 20, "the line about pg_durable")
    assert "Traceback" not in engine.output()


async def test_run_is_shown_as_running_while_it_runs(home: Home) -> None:
    home.serve()
    instance = await home.start(seconds=8)

    async def running() -> bool:
        return await home.status(instance) == "running"

    await until(running, 30, "the status running")
    assert await home.ended(instance) == "completed"


async def test_run_whose_step_failed_for_good_fails_with_its_error(home: Home) -> None:
    home.serve()
    instance = await home.start(workflow="failing")
    assert await home.ended(instance) == "failed"
    found = await home.ask(f"/instances/{instance}")
    assert "LookupError" in json.dumps(found["error"])
    assert await home.effects(instance, "broken#1") == 2


async def test_run_whose_service_is_killed_in_mid_step_goes_on(home: Home) -> None:
    service = home.serve()
    instance = await home.start(seconds=5)
    await until(lambda: home.effects(instance, "second#1"), 60, "the second step")
    service.kill()
    service.start()
    service.wait_until_ready()
    assert await home.ended(instance, 150) == "completed"
    assert await home.effects(instance, "first#1") == 1
    await home.assert_recorded_once(instance)


async def test_run_started_while_no_service_is_up_completes_when_one_comes(home: Home) -> None:
    home.serve().kill()
    instance = await home.start()

    async def given_up() -> bool:
        conn = await asyncpg.connect(home.database.admin_dsn)
        try:
            statuses = await conn.fetch(
                "select i.status from df.instances i "
                "join pgflows.df_runs r on r.df_id = i.id where r.instance_id = $1",
                instance,
            )
        finally:
            await conn.close()
        return [r["status"] for r in statuses] == ["failed"]

    await until(given_up, 60, "the failure of the orchestrator's instance")
    home.serve()
    assert await home.ended(instance, 150) == "completed"


async def test_cancelled_run_ends_with_its_reason(home: Home) -> None:
    home.serve()
    instance = await home.start(seconds=20)
    await until(lambda: home.effects(instance, "second#1"), 60, "the second step")
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"http://127.0.0.1:{home.port}/instances/{instance}/cancel", json={"reason": "late"}
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "cancelled"
    assert await home.ended(instance) == "cancelled"
    assert await home.effects(instance, "third#1") == 0


async def test_start_with_the_same_key_starts_once(home: Home) -> None:
    home.serve()
    async with httpx.AsyncClient() as http:
        answers = [
            await http.post(
                f"http://127.0.0.1:{home.port}/workflows/three/start?wait=60",
                json={"input": {"name": "once"}},
                headers={"Idempotency-Key": "k"},
                timeout=90,
            )
            for _ in range(2)
        ]
    ids = {a.json()["instance_id"] for a in answers}
    assert len(ids) == 1
    assert [a.json()["status"] for a in answers] == ["completed", "completed"]


async def test_start_in_a_transaction_that_stays_open_for_long_is_not_lost(home: Home) -> None:
    home.serve()
    conn = await asyncpg.connect(home.database.dsn)
    async with conn.transaction():
        instance = await conn.fetchval(
            "select pgflows.start($1, $2)", "three", json.dumps({"name": "late"})
        )
        await conn.fetchval("select pg_sleep(9)")
    await conn.close()
    assert await home.ended(instance, 150) == "completed"


async def test_maintenance_is_taken_over_when_its_leader_dies(home: Home) -> None:
    first = home.serve()
    second = home.spawn(
        "serve",
        dsn=home.dsn,
        PGFLOWS_APP="tests.acceptance.deployment:app",
        PGFLOWS_RUN_DSN=home.database.run_dsn,
        PGFLOWS_BASE_URL=first.url,
        EFFECTS_DSN=home.dsn,
    ).wait_until_ready()
    instance = await home.start(workflow="failing", seconds=0)
    await until(lambda: home.effects(instance, "broken#1"), 60, "the failing step")
    first.kill()
    first.start()
    assert await home.ended(instance, 150) == "failed"
    assert "Traceback" not in second.output()


async def test_exported_workflow_is_defined_and_started_by_psql(home: Home, tmp_path: Path) -> None:
    home.serve()
    file = tmp_path / "three.sql"
    file.write_text((await home.get("/export/three.sql")).text)
    await home.conn.execute("update pgflows.workflows set active = false where name = 'three'")
    await program("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(file), home.dsn)
    (instance,) = [r[0] for r in await home.conn.fetch("select instance_id from pgflows.instances")]
    assert await home.ended(instance) == "completed"


async def test_run_survives_the_end_of_every_session_in_mid_step(home: Home) -> None:
    home.serve()
    instance = await home.start(seconds=4)
    await until(lambda: home.effects(instance, "second#1"), 60, "the second step")
    admin = await asyncpg.connect(home.database.admin_dsn)
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where pid <> pg_backend_pid() and usename in ('pgflows_beside', 'pgflows_run')"
    )
    await admin.close()
    home.conn = await asyncpg.connect(home.dsn)
    try:
        assert await home.ended(instance, 150) == "completed"
        await home.assert_recorded_once(instance)
    finally:
        await home.conn.close()


async def test_retry_that_is_due_after_the_call_is_made(home: Home) -> None:
    home.serve()
    instance = await home.start(workflow="patient")
    assert await home.ended(instance, 150) == "completed"
    assert (await home.attempts(instance))["later#1"] == ["LookupError", None]
