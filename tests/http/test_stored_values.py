"""Whatever is stored is shown: jsonb holds more than Python's readers of JSON do."""

from __future__ import annotations

import json
import re

import asyncpg
import httpx
import pytest

from pgflows.cli.tables import print_answer, print_history, print_instance, print_page
from pgflows.client import Client
from tests.conftest import Database
from tests.http.conftest import Serve

NINES = "9" * 5000
VALUES = {
    "5000 digits": NINES,
    "5000 decimals": f"0.{NINES}",
    "a large exponent": "1e100000",
    "3000 lists": "[" * 3000 + "]" * 3000,
    "3000 objects": '{"a": ' * 3000 + "null" + "}" * 3000,
}
INSTANCE = "019aa7d2-6b1c-7c3e-9b0a-3f2f6f0d9a11"
INSERT_INSTANCE = (
    "insert into pgflows.instances (instance_id, workflow, version, status, input, output, error, "
    "attributes, started_by, ended_at) select $1, 'w', '1', 'failed', j, j, j, j, 'x', now() "
    "from (select jsonb_build_object('value', $2::text::jsonb)) v(j)"
)
INSERT_STEP = (
    "insert into pgflows.step_runs "
    "(instance_id, step_key, step, seq, key_id, status, input, output, error) "
    "select $1, 's#1', 's', 1, 'k', 'failed', j, j, j from (select $2::text::jsonb) v(j)"
)


@pytest.fixture(params=list(VALUES))
async def value(request: pytest.FixtureRequest, database: Database) -> str:
    """What stands in every column of an instance and of a step of it, as PostgreSQL writes it."""
    text = VALUES[request.param]
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(INSERT_INSTANCE, INSTANCE, text)
    await conn.execute(INSERT_STEP, INSTANCE, text)
    written: str = await conn.fetchval("select $1::text::jsonb::text", text)
    await conn.close()
    return written


async def test_the_service_shows_the_value_as_it_is_stored(
    value: str, http: httpx.AsyncClient
) -> None:
    for path, times in (
        ("/instances", 2),
        (f"/instances/{INSTANCE}", 4),
        (f"/instances/{INSTANCE}/history", 7),
    ):
        response = await http.get(path)
        assert response.status_code == 200
        assert response.text.count(value) == times
    cancelled = await http.post(f"/instances/{INSTANCE}/cancel")
    assert cancelled.status_code == 200
    assert (await http.get("/stats")).status_code == 200
    assert (await http.get("/metrics")).status_code == 200


async def test_the_client_and_the_commands_show_the_value(
    value: str, http: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client("http://localhost", transport=http._transport) as client:
        page = await client.list()
        instance = await client.get(INSTANCE)
        history = await client.history(INSTANCE)
    for answer, draw in (
        (page, print_page),
        (instance, print_instance),
        (history, print_history),
    ):
        print_answer(answer, False, draw)  # type: ignore[arg-type]  # pairs of the same type
        assert INSTANCE in capsys.readouterr().out
        print_answer(answer, True, draw)  # type: ignore[arg-type]  # pairs of the same type
        assert json.loads(capsys.readouterr().out)


async def test_times_are_utc_whatever_the_time_zone_of_the_database(
    serve: Serve, database: Database, server_dsn: str
) -> None:
    admin = await asyncpg.connect(server_dsn)
    await admin.execute(f"alter database {database.name} set timezone = 'Asia/Kolkata'")
    await admin.close()
    async with serve() as http:
        order = {"order_id": "ORD-1", "amount": 1}
        started = await http.post("/workflows/process_order/start", json={"input": order})
        instance = started.json()["instance_id"]
        await http.post(f"/instances/{instance}/cancel")
        answers = [
            await http.get(path)
            for path in (
                "/instances",
                f"/instances/{instance}",
                f"/instances/{instance}/history",
                "/workflows",
            )
        ]
    for answer in (started, *answers):
        zones = re.findall(r'"[0-9-]{10}T[0-9:.]+([^"]*)"', answer.text)
        assert set(zones) == {"+00:00"}
