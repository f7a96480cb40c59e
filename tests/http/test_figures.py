"""GET /metrics, /stats, /healthz, /readyz."""

from __future__ import annotations

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families

from pgflows.client import Client
from tests.conftest import Database

INSTANCES = "pgflows_instances"
ORDER = {"order_id": "ORD-1", "amount": 1}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_live_instances_by_workflow_and_status(
    http: httpx.AsyncClient,
) -> None:
    for _ in range(3):
        await http.post("/workflows/process_order/start", json={"input": ORDER})
    response = await http.get("/metrics")
    found = samples(response.text)
    labels = frozenset({("workflow", "process_order"), ("status", "pending")})
    assert response.headers["content-type"].startswith("text/plain")
    assert found[("pgflows_instances", labels)] == 3
    assert found[("pgflows_database_up", frozenset())] == 1
    assert found[("pgflows_engines_live", frozenset())] == 0
    assert found[("pgflows_engine_lag_seconds", frozenset())] > 0


async def test_metrics_count_what_ended_by_workflow_and_status(
    http: httpx.AsyncClient, database: Database
) -> None:
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(
        "insert into pgflows.instances (instance_id, workflow, version, status, input, started_by) "
        "select pgflows.uuid7(), w, '1', s, '{}', 'x' from (values ('a', 'completed', 3), "
        "('a', 'failed', 2), ('a', 'running', 1), ('b', 'cancelled', 1)) v(w, s, n), "
        "generate_series(1, n)"
    )
    await conn.close()
    found = samples((await http.get("/metrics")).text)
    counts = {tuple(sorted(dict(k).values())): v for (n, k), v in found.items() if n == INSTANCES}
    assert counts == {
        ("a", "completed"): 3,
        ("a", "failed"): 2,
        ("a", "running"): 1,
        ("b", "cancelled"): 1,
    }
    stats = (await http.get("/stats")).json()["instances"]
    assert {(c["workflow"], c["status"]): c["count"] for c in stats} == counts


async def test_stats_tell_the_same_as_json(http: httpx.AsyncClient) -> None:
    await http.post("/workflows/process_order/start", json={"input": ORDER})
    stats = (await http.get("/stats")).json()
    assert stats["instances"] == [{"workflow": "process_order", "status": "pending", "count": 1}]
    assert stats["df"]["total_instances"] == 1
    assert (stats["engine"]["live"], stats["engine"]["due"]) == (0, 1)
    assert stats["pool"]["size"] >= 1


async def test_a_service_without_an_engine_lives_but_is_not_ready(
    http: httpx.AsyncClient,
) -> None:
    ready = await http.get("/readyz")
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert ready.status_code == 503
    assert ready.json()["database"] is True
    assert ready.json()["migrations"] is True
    assert ready.json()["engine"] is False


async def test_a_service_with_an_engine_gets_ready_and_measures_steps(live: Client) -> None:
    await live.start("process_order", ORDER, wait=20)
    async with httpx.AsyncClient(base_url=live.base_url) as http:
        ready = await http.get("/readyz")
        found = samples((await http.get("/metrics")).text)
        stats = (await http.get("/stats")).json()
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    charged = frozenset({("step", "charge"), ("status", "200")})
    assert found[("pgflows_step_seconds_count", charged)] == 1
    assert stats["engine"]["live"] == 1
    assert stats["engine_here"]
