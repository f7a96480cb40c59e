"""The typed client against the service."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from pgflows import errors
from pgflows.client import Client
from tests.http.conftest import Serve
from tests.http.flows import Order

ORDER = Order(order_id="ORD-1", amount=1)


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    async with (
        serve(api_keys="secret") as http,
        Client("http://service", "secret", transport=http._transport) as client,
    ):
        yield client


async def test_what_was_started_can_be_looked_at_and_cancelled(client: Client) -> None:
    started = await client.start("process_order", ORDER, label="web", attributes={"a": 1})
    found = await client.get(started.instance_id)
    history = await client.history(started.instance_id)
    cancelled = await client.cancel(started.instance_id, "no stock")
    assert (found.input, found.label, found.ended) == (ORDER.model_dump(), "web", False)
    assert history.instance_id == started.instance_id
    assert (cancelled.status, cancelled.ended) == ("cancelled", True)
    assert await client.wait(started.instance_id, timeout=1) == cancelled


async def test_a_key_starts_once(client: Client) -> None:
    first = await client.start("process_order", ORDER, idempotency_key="k")
    again = await client.start("process_order", ORDER, idempotency_key="k")
    assert (first.created, again.created) == (True, False)
    assert first.instance_id == again.instance_id


async def test_a_list_goes_on_over_its_pages(client: Client) -> None:
    ids = [(await client.start("process_order", ORDER)).instance_id for _ in range(3)]
    page = await client.list(limit=2)
    rest = await client.list(limit=2, cursor=page.next_cursor)
    assert [i.instance_id for i in page.instances + rest.instances] == ids[::-1]
    assert [i.instance_id async for i in client.list_all(status="pending")] == ids[::-1]


async def test_workflows_and_their_sql_can_be_read(client: Client) -> None:
    names = [workflow.name for workflow in await client.workflows()]
    assert names == ["process_order", "refused_order", "slow_order"]
    assert (await client.workflow("process_order")).version == "1"
    assert "df.http" in await client.export("process_order")


async def test_refusals_arrive_as_the_errors_that_the_service_raised(client: Client) -> None:
    with pytest.raises(errors.WorkflowNotFound):
        await client.start("nothing at all", {})
    with pytest.raises(errors.InvalidInput, match="amount"):
        await client.start("process_order", {"order_id": "ORD-1"})
    with pytest.raises(errors.InstanceNotFound):
        await client.get("00000000")
    with pytest.raises(errors.InvalidRequest) as caught:
        await client.list(limit=0)
    assert caught.value.data["errors"][0]["loc"] == ["query", "limit"]
    await client.start("process_order", ORDER, idempotency_key="k")
    with pytest.raises(errors.IdempotencyConflict):
        await client.start("process_order", {"order_id": "x", "amount": 1}, idempotency_key="k")


async def test_a_wrong_key_is_unauthorized(serve: Serve) -> None:
    async with (
        serve(api_keys="secret") as http,
        Client("http://service", "wrong", transport=http._transport) as client,
    ):
        with pytest.raises(errors.Unauthorized):
            await client.workflows()


async def test_a_wait_that_takes_too_long_is_a_timeout(client: Client) -> None:
    started = await client.start("process_order", ORDER)
    with pytest.raises(TimeoutError, match="pending"):
        await client.wait(started.instance_id, timeout=0.1)


async def test_no_service_is_service_unavailable() -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(errors.ServiceUnavailable, match="does not answer"):
            await client.workflows()


async def test_an_answer_from_something_else_is_told_so() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    async with Client("http://proxy", transport=transport) as client:
        with pytest.raises(errors.PgflowsError, match="answered 502"):
            await client.workflows()
