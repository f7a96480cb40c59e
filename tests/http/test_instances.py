"""GET /instances…, POST /instances/{id}/cancel."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import httpx

from pgflows.client import Client
from pgflows.database.connections import Connection

START = "/workflows/process_order/start"
UNKNOWN = "019aa7d2-6b1c-7c3e-9b0a-3f2f6f0d9a11"


async def start(http: httpx.AsyncClient, n: int = 1, **more: str) -> dict[str, str]:
    body = {"input": {"order_id": f"ORD-{n}", "amount": n}} | more
    response = await http.post(START, json=body)
    assert response.status_code == 201
    started: dict[str, str] = response.json()
    return started


async def test_an_instance_is_found_by_uuid_and_by_df_id(http: httpx.AsyncClient) -> None:
    started = await start(http)
    by_uuid = await http.get(f"/instances/{started['instance_id']}")
    by_df_id = await http.get(f"/instances/{started['df_id']}")
    upper = await http.get(f"/instances/{started['instance_id'].upper()}")
    assert by_uuid.json() == by_df_id.json() == upper.json()
    assert by_uuid.json()["input"] == {"order_id": "ORD-1", "amount": 1}


async def test_an_unknown_instance_is_404(http: httpx.AsyncClient) -> None:
    for unknown in (UNKNOWN, "00000000"):
        for method, path in (("GET", ""), ("GET", "/history"), ("POST", "/cancel")):
            response = await http.request(method, f"/instances/{unknown}{path}")
            assert response.status_code == 404
            assert response.json()["type"] == "urn:pgflows:problem:instance-not-found"


async def test_a_malformed_id_is_422(http: httpx.AsyncClient) -> None:
    for bad in ("x", "0000000", "0000000g", "%00", UNKNOWN[:-1], f"{UNKNOWN}%0a"):
        found = await http.get(f"/instances/{bad}")
        assert found.status_code == 422
        assert "an instance_id (a uuid) or a df_id" in found.json()["detail"]
        assert (await http.post(f"/instances/{bad}/cancel")).status_code == 422


async def test_pages_hold_every_instance_once_newest_first(http: httpx.AsyncClient) -> None:
    ids = [(await start(http, n))["instance_id"] for n in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await http.get("/instances", params={"limit": "2"} | cursor)).json()
        seen += [row["instance_id"] for row in page["instances"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids[::-1]


async def test_a_list_is_filtered(http: httpx.AsyncClient) -> None:
    first = await start(http, 1, label="a")
    second = await start(http, 2, label="b")
    await http.post(f"/instances/{second['instance_id']}/cancel")
    before = datetime.fromisoformat(second["created_at"])

    async def ids(**params: str) -> list[str]:
        page = (await http.get("/instances", params=params)).json()
        return [row["instance_id"] for row in page["instances"]]

    assert await ids(label="a") == [first["instance_id"]]
    assert await ids(status="cancelled") == [second["instance_id"]]
    assert await ids(workflow="process_order", status="pending") == [first["instance_id"]]
    assert await ids(workflow="slow_order") == []
    assert await ids(since=before.isoformat()) == [second["instance_id"]]
    assert await ids(since=(datetime.now(UTC) + timedelta(days=1)).isoformat()) == []


async def test_an_instance_that_an_engine_has_claimed_is_running(
    http: httpx.AsyncClient, owner: Connection
) -> None:
    claimed, waiting = [(await start(http, n))["instance_id"] for n in (1, 2)]
    engine = uuid.uuid4()
    await owner.execute("select df._open_engine($1)", engine)
    assert len(await owner.fetch("select * from df._claim($1, 1)", engine)) == 1
    stored = await owner.fetch("select distinct status from pgflows.instances")
    assert [r["status"] for r in stored] == ["pending"]

    async def listed(**params: str) -> list[tuple[str, str]]:
        page = (await http.get("/instances", params=params)).json()
        return [(row["instance_id"], row["status"]) for row in page["instances"]]

    assert (await http.get(f"/instances/{claimed}")).json()["status"] == "running"
    assert (await http.get(f"/instances/{claimed}/history")).json()["status"] == "running"
    assert (await http.get(f"/instances/{waiting}")).json()["status"] == "pending"
    assert await listed() == [(waiting, "pending"), (claimed, "running")]
    assert await listed(status="running") == [(claimed, "running")]
    assert await listed(status="pending") == [(waiting, "pending")]
    assert await listed(status="running", workflow="slow_order") == []
    assert await listed(status="running", cursor=claimed) == []
    counts = (await http.get("/stats")).json()["instances"]
    assert [(c["status"], c["count"]) for c in counts] == [("pending", 1), ("running", 1)]


async def test_a_list_of_running_instances_has_pages_of_claimed_and_written_ones(
    http: httpx.AsyncClient, owner: Connection
) -> None:
    started = [await start(http, n) for n in range(6)]
    engine = uuid.uuid4()
    await owner.execute("select df._open_engine($1)", engine)
    await owner.fetch("select * from df._claim($1, 5)", engine)
    await owner.execute(
        "update df.instances set status = 'running' where id = $1", started[2]["df_id"]
    )
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        params = {"status": "running", "limit": "2"} | cursor
        page = (await http.get("/instances", params=params)).json()
        seen += [row["instance_id"] for row in page["instances"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [s["instance_id"] for s in started[:5]][::-1]


BAD_FILTERS = [
    "limit=0",
    "limit=1001",
    "limit=9999999999999999999999",
    "limit=x",
    "cursor=x",
    "cursor=%00",
    "status=odd",
    "label=%00",
    "workflow=%00",
    "since=yesterday",
    "since=2025-01-01T00:00:00",
    "since=0001-01-01T00:00:00%2B14:00",
    "since=9999-12-31T23:59:59-14:00",
]


async def test_a_bad_filter_is_422_and_named(http: httpx.AsyncClient) -> None:
    for query in BAD_FILTERS:
        response = await http.get(f"/instances?{query}")
        assert response.status_code == 422, query
        assert response.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_an_unknown_query_parameter_is_ignored(http: httpx.AsyncClient) -> None:
    assert (await http.get("/instances?colour=red")).status_code == 200


async def test_cancel_ends_a_live_instance_and_leaves_an_ended_one(
    http: httpx.AsyncClient,
) -> None:
    started = await start(http)
    path = f"/instances/{started['instance_id']}/cancel"
    first = await http.post(path, json={"reason": "ordered twice"})
    again = await http.post(path, json={"reason": "another"})
    assert first.status_code == again.status_code == 200
    assert first.json()["status"] == "cancelled"
    assert first.json()["error"] == {"type": "Cancelled", "message": "ordered twice"}
    assert again.json() == first.json()


async def test_cancel_needs_no_body(http: httpx.AsyncClient) -> None:
    started = await start(http)
    response = await http.post(f"/instances/{started['df_id']}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")


async def test_a_bad_reason_is_422(http: httpx.AsyncClient) -> None:
    path = f"/instances/{(await start(http))['instance_id']}/cancel"
    for body in ('{"reason": 1}', '{"reason": "\\u0000"}', '{"why": "x"}', "["):
        response = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, body


async def test_history_shows_steps_attempts_and_nodes(live: Client) -> None:
    done = await live.start("process_order", {"order_id": "ORD-1", "amount": 1}, wait=20)
    history = await live.history(done.instance_id)
    assert [(s.step_key, s.seq, s.status) for s in history.steps] == [
        ("charge#1", 1, "completed"),
        ("ship#1", 2, "completed"),
    ]
    assert history.steps[0].input == {"order_id": "ORD-1", "amount": 1}
    assert history.steps[1].output == {"parcel": "PARCEL-CHG-ORD-1"}
    assert [(a.attempt, a.error_type) for a in history.steps[0].attempts] == [(1, None)]
    leaves = [node["node_type"] for node in history.nodes if node["node_type"] != "THEN"]
    assert leaves == ["SQL", "HTTP", "SQL", "HTTP", "SQL"]
    assert len(history.executions) == 1


async def test_a_failure_is_told_without_its_traceback(live: Client) -> None:
    done = await live.start("refused_order", {"order_id": "ORD-1", "amount": 1}, wait=20)
    history = await live.history(done.instance_id)
    assert history.status == "failed"
    assert "no credit for ORD-1" in str(history.error)
    assert history.steps[0].attempts[0].error_type == "NonRetryableError"
    assert "Traceback" not in history.model_dump_json()


async def test_cancel_interrupts_a_running_step(live: Client) -> None:
    started = await live.start("slow_order", {"order_id": "ORD-1", "amount": 3}, wait=0.5)
    assert started.status in ("pending", "running")
    await live.cancel(started.instance_id, "changed my mind")
    ended = await live.wait(started.instance_id, timeout=2)
    history = await live.history(started.instance_id)
    assert ended.status == "cancelled"
    assert [step.status for step in history.steps] == ["cancelled"]
