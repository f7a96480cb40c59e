"""Somebody leaves a transaction open that holds what requests want to change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from pgflows.database import access
from tests.conftest import Database, until
from tests.http.conftest import Serve

START = "/workflows/process_order/start"
ORDER = {"order_id": "ORD-1", "amount": 1}
WAITS = "select exists (select from pg_locks where not granted)"
BOUND_SECONDS = 8.0  # for an answer, on a machine with other work to do


@asynccontextmanager
async def open_transaction(
    database: Database, statement: str, *args: Any
) -> AsyncIterator[asyncpg.Connection[Any]]:
    conn = await asyncpg.connect(database.dsn)
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(statement, *args)
    try:
        yield conn
    finally:
        await transaction.rollback()
        await conn.close()


def starts_with_key(database: Database, key: str) -> Any:
    statement = "select pgflows.start('process_order', $1::text::jsonb, $2)"
    return open_transaction(database, statement, '{"order_id": "ORD-1", "amount": 1}', key)


async def start(http: httpx.AsyncClient, key: str) -> httpx.Response:
    return await http.post(START, json={"input": ORDER}, headers={"Idempotency-Key": key})


async def assert_others_are_served(http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    assert (await http.get("/instances")).status_code == 200
    assert "pgflows_database_up 1.0" in (await http.get("/metrics")).text
    assert (await http.get("/readyz")).json()["database"] is True
    assert (await start(http, "another key")).status_code == 201
    assert time.monotonic() - began < BOUND_SECONDS


async def test_retries_of_a_start_that_is_under_way_leave_others_their_connections(
    serve: Serve, database: Database
) -> None:
    async with serve(pool_size=4) as http, starts_with_key(database, "held"):
        retries = [asyncio.create_task(start(http, "held")) for _ in range(12)]
        await assert_others_are_served(http)
        answers = await asyncio.gather(*retries)
    for answer in answers:
        assert answer.status_code == 409
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"] == "urn:pgflows:problem:in-progress"
        assert "held" in answer.json()["detail"]


async def test_a_retry_finds_the_run_once_the_transaction_has_ended(
    serve: Serve, database: Database
) -> None:
    async with serve() as http, starts_with_key(database, "held") as conn:
        retry = asyncio.create_task(start(http, "held"))
        await until(lambda: conn.fetchval(WAITS), what="the retry's wait for the transaction")
        await conn.execute("commit; begin")
        answer = await retry
    assert answer.status_code == 200
    assert answer.json()["created"] is False


async def test_cancels_of_an_instance_that_is_held_leave_others_their_connections(
    serve: Serve, database: Database
) -> None:
    async with serve(pool_size=4) as http:
        instance = (await start(http, "cancelled")).json()["instance_id"]
        path = f"/instances/{instance}/cancel"
        held = open_transaction(database, "select pgflows.cancel_instance($1)", instance)
        async with held:
            cancels = [asyncio.create_task(http.post(path)) for _ in range(12)]
            await assert_others_are_served(http)
            answers = await asyncio.gather(*cancels)
        ended = await http.post(path)
    assert {a.status_code for a in answers} == {409}
    assert {a.headers["retry-after"] for a in answers} == {"1"}
    assert instance in answers[0].json()["detail"]
    assert ended.json()["status"] == "cancelled"


async def test_starts_with_many_keys_that_are_all_held_are_answered_in_time(
    serve: Serve, database: Database, monkeypatch: Any
) -> None:
    monkeypatch.setattr(access, "CONNECTION_SECONDS", 0.5)
    statement = (
        "select pgflows.start('process_order', $1::text::jsonb, 'key ' || n) "
        "from generate_series(1, 12) n"
    )
    held = open_transaction(database, statement, '{"order_id": "ORD-1", "amount": 1}')
    async with serve(pool_size=4) as http, held:
        starts = [asyncio.create_task(start(http, f"key {n}")) for n in range(1, 13)]
        assert (await http.get("/instances")).status_code == 200
        answers = await asyncio.gather(*starts)
    assert {a.status_code for a in answers} == {409, 503}
    assert {a.headers["retry-after"] for a in answers} == {"1"}
    refused = next(a for a in answers if a.status_code == 503)
    assert refused.json()["type"] == "urn:pgflows:problem:service-unavailable"
    assert "no connection" in refused.json()["detail"]
