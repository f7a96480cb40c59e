"""POST /workflows/{name}/start."""

from __future__ import annotations

import json
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import httpx

from pgflows.client import Client

Connection: TypeAlias = "asyncpg.Connection[Any]"
START = "/workflows/process_order/start"
ORDER = {"order_id": "ORD-1", "amount": 99.0}


async def test_a_start_answers_201_with_the_new_instance(http: httpx.AsyncClient) -> None:
    response = await http.post(
        START, json={"input": ORDER, "label": "web", "attributes": {"by": "test"}}
    )
    body = response.json()
    assert response.status_code == 201
    assert UUID(body["instance_id"]).version == 7
    assert len(body["df_id"]) == 8
    assert (body["workflow"], body["version"], body["status"]) == ("process_order", "1", "pending")
    assert (body["label"], body["attributes"], body["created"]) == ("web", {"by": "test"}, True)


async def test_the_same_key_finds_the_same_instance_with_200(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order 1"}
    first = await http.post(START, json={"input": ORDER}, headers=headers)
    again = await http.post(START, json={"input": ORDER}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["instance_id"] == again.json()["instance_id"]
    assert again.json()["created"] is False


async def test_a_key_with_another_input_is_409(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order 1"}
    await http.post(START, json={"input": ORDER}, headers=headers)
    other = await http.post(START, json={"input": ORDER | {"amount": 1}}, headers=headers)
    assert other.status_code == 409
    assert other.json()["type"] == "urn:pgflows:problem:idempotency-conflict"


async def test_key_that_an_open_transaction_starts_with_is_409_and_says_when_to_try_again(
    http: httpx.AsyncClient, owner: Connection
) -> None:
    async with owner.transaction():
        statement = "select pgflows.start('process_order', $1, 'order 1')"
        await owner.execute(statement, json.dumps(ORDER))
        response = await http.post(
            START, json={"input": ORDER}, headers={"Idempotency-Key": "order 1"}
        )
    assert response.status_code == 409
    assert response.headers["Retry-After"] == "1"
    assert response.json()["type"] == "urn:pgflows:problem:in-progress"
    assert response.json()["idempotency_key"] == "order 1"


async def test_a_start_of_an_unknown_workflow_is_404(http: httpx.AsyncClient) -> None:
    response = await http.post("/workflows/nothing/start", json={"input": {}})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:pgflows:problem:workflow-not-found"


async def test_a_missing_field_is_named(http: httpx.AsyncClient) -> None:
    response = await http.post(START, json={"input": {"order_id": "ORD-1"}})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:pgflows:problem:invalid-input"
    assert "amount" in response.json()["detail"]


async def test_an_input_beyond_the_limit_is_413(http: httpx.AsyncClient) -> None:
    order = {"order_id": "x" * 1_100_000, "amount": 1}
    response = await http.post(START, json={"input": order})
    assert response.status_code == 413
    assert response.json()["type"] == "urn:pgflows:problem:input-too-large"


async def test_a_huge_body_is_413_before_it_is_parsed(http: httpx.AsyncClient) -> None:
    response = await http.post(
        START, content=b"{" * (17 << 20), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"input": []}',
    b'{"input": null}',
    b'{"inputs": {}}',
    b'{"input": {}, "surprise": 1}',
    b'{"input": {"order_id": "a\\u0000b", "amount": 1}}',
    b'{"input": {"order_id": "\\ud800", "amount": 1}}',
    b'{"input": {"\\udfff": 1}}',
    b'{"\\ud800": 1}',
    b'{"input": {"order_id": "a", "amount": NaN}}',
    b'{"input": {"order_id": "a", "amount": 1e999}}',
    b'{"input": {"order_id": "a", "amount": %s}}' % (b"9" * 5000),
    b'{"input": {"order_id": "a", "amount": 1, "x": %s}}' % (b"[" * 200 + b"]" * 200),
    b'{"input": {"x": %s}}' % (b"[" * 100_000 + b"]" * 100_000),
    b'{"input": {"order_id": "a", "amount": 1}, "label": "\\u0000"}',
    b'{"input": {"order_id": "a", "amount": 1}, "label": "%s"}' % (b"l" * 256),
    b'{"input": {"order_id": "a", "amount": 1}, "attributes": {"\\u0000": 1}}',
]


async def test_a_malformed_body_is_a_4xx_problem(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    for body in MALFORMED:
        response = await http.post(START, content=body, headers=headers)
        assert response.status_code in (400, 422), body[:100]
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


async def test_a_body_of_another_type_is_refused(http: httpx.AsyncClient) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": media_type}
        response = await http.post(START, content=b'{"input": {}}', headers=headers)
        assert response.status_code == 415
        assert "Content-Type: application/json" in response.json()["detail"]


async def test_a_refusal_says_in_words_what_is_expected(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    broken = await http.post(START, content=b"{bad", headers=headers)
    assert "not JSON: " in broken.json()["detail"]
    assert "at character 1" in broken.json()["detail"]
    long = await http.post(START, json={"input": ORDER, "label": "l" * 256})
    assert long.json()["detail"] == "body.label: String should have at most 255 characters"
    key = await http.post(START, json={"input": ORDER}, headers={"Idempotency-Key": "k" * 256})
    assert "1 to 255 printable ASCII characters" in key.json()["detail"]


async def test_any_text_comes_back_as_it_went_in(http: httpx.AsyncClient) -> None:
    for text in ("\\u0000", "C:\\\\u0000", "ä𝄞'\"$r1 {sys_label} \\", "\u2028", "𝄞" * 100):
        order = {"order_id": text, "amount": 1.5}
        started = await http.post(START, json={"input": order, "label": text})
        assert started.status_code == 201
        found = (await http.get(f"/instances/{started.json()['instance_id']}")).json()
        assert (found["input"], found["label"]) == (order, text)


async def test_wait_is_0_to_300_seconds(http: httpx.AsyncClient) -> None:
    for wait in ("-1", "301", "x", "nan", "inf", ""):
        response = await http.post(START, params={"wait": wait}, json={"input": ORDER})
        assert response.status_code == 422, wait


async def test_a_key_is_at_most_255_printable_ascii_characters(http: httpx.AsyncClient) -> None:
    for key in (b"", b"k" * 256, b"\xe4", b"tab\t"):
        response = await http.post(START, json={"input": ORDER}, headers={b"Idempotency-Key": key})
        assert response.status_code == 422, key


async def test_a_wait_that_is_over_answers_with_the_state_so_far(http: httpx.AsyncClient) -> None:
    response = await http.post(START, params={"wait": 0.05}, json={"input": ORDER})
    assert (response.status_code, response.json()["status"]) == (201, "pending")


async def test_a_start_that_waits_answers_with_the_output(live: Client) -> None:
    done = await live.start("process_order", ORDER, wait=20)
    assert done.status == "completed"
    assert done.output == {"parcel": "PARCEL-CHG-ORD-1"}
