"""A step is called until the ledger has its outcome, whatever answers in the service's place."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.acceptance.conftest import Deployment
from tests.acceptance.proxy import HANG_UP, Proxy, proxy_before
from tests.conftest import until


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


INSTEAD = {
    "not found": http("404 Not Found", b"<h1>no backend</h1>", "content-type: text/html"),
    "moved": http("308 Permanent Redirect", b"", "location: https://elsewhere.example/"),
    "unauthorized": http("401 Unauthorized", b'{"detail": "who?"}'),
    "page": http("200 OK", b"<p>back soon</p>", "content-type: text/html"),
    "json": http("200 OK", b'{"name": "forged"}', "content-type: application/json"),
    "no content": b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    "failed": http("424 Failed Dependency", b'{"error": {"type": "X", "message": "forged"}}'),
    "gone": http("410 Gone"),
    "server error": http("500 Internal Server Error", b"oops"),
    "gateway": http("502 Bad Gateway"),
    "large": http("200 OK", b"x" * 9_000_000),
    "garbage": b"\x15\x03\x01\x00\x02\x02\x50",
    "silence": HANG_UP,
}


@pytest.fixture
async def proxy(deployment: Deployment) -> AsyncIterator[Proxy]:
    """Registered as the base URL of the deployment's service."""
    async with proxy_before(deployment.port) as found:
        yield found


async def step(deployment: Deployment, instance: Any, key: str = "first#1") -> dict[str, Any]:
    """What the history says of one step."""
    found = await deployment.conn.fetchval("select pgflows.history($1)", str(instance))
    [one] = [s for s in json.loads(found)["steps"] if s["step_key"] == key]
    return dict(one)


async def waiting(deployment: Deployment, instance: Any, tries: int = 1) -> dict[str, Any]:
    """What the history says of a step that was called in vain this often."""

    async def look() -> dict[str, Any] | None:
        steps = await deployment.conn.fetchval("select pgflows.history($1)", str(instance))
        for found in json.loads(steps)["steps"]:
            if found["waiting"] is not None and found["waiting"]["tries"] >= tries:
                return dict(found["waiting"])
        return None

    return dict(await until(look, what="a step that waits"))


@pytest.mark.parametrize("how", INSTEAD)
async def test_run_waits_while_something_else_answers_for_its_step(
    deployment: Deployment, proxy: Proxy, how: str
) -> None:
    proxy.instead = INSTEAD[how]
    deployment.service(PGFLOWS_BASE_URL=proxy.url)
    deployment.engine()
    instance = await deployment.start()
    found = await waiting(deployment, instance, tries=3)
    assert found["reason"].startswith("HTTP ")
    assert await deployment.status(instance) in ("pending", "running")
    proxy.instead = None
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)
    assert (await step(deployment, instance))["waiting"] is None


@pytest.mark.parametrize("how", ["not found", "page", "silence", "server error"])
async def test_run_goes_on_when_its_step_is_recorded_though_the_answer_is_lost(
    deployment: Deployment, proxy: Proxy, how: str
) -> None:
    proxy.instead, proxy.swallows = INSTEAD[how], True
    deployment.service(PGFLOWS_BASE_URL=proxy.url)
    deployment.engine()
    instance = await deployment.start()
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)
    assert proxy.asked == 3, "each step was called once"


async def test_cancel_ends_the_wait_for_a_step(deployment: Deployment, proxy: Proxy) -> None:
    proxy.instead = INSTEAD["not found"]
    deployment.service(PGFLOWS_BASE_URL=proxy.url)
    engine = deployment.engine()
    instance = await deployment.start()
    await waiting(deployment, instance)
    await deployment.conn.execute("select pgflows.cancel_instance($1)", str(instance))
    assert await deployment.ended(instance) == "cancelled"
    assert (await step(deployment, instance))["waiting"] is None
    proxy.instead = None
    assert await deployment.ended(await deployment.start()) == "completed", engine.output()
    assert await deployment.effects(instance) == 0


async def test_engine_killed_while_a_step_waits_is_replaced(
    deployment: Deployment, proxy: Proxy
) -> None:
    proxy.instead = INSTEAD["not found"]
    deployment.service(PGFLOWS_BASE_URL=proxy.url)
    engine = deployment.engine()
    instance = await deployment.start()
    found = await waiting(deployment, instance)
    engine.kill(signal.SIGKILL)
    await deployment.forget_dead_engines()
    deployment.engine()
    later = await waiting(deployment, instance, tries=found["tries"] + 2)
    assert later["since"] == found["since"]
    proxy.instead = None
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)


async def test_step_that_an_older_replica_lacks_waits_and_is_named(
    deployment: Deployment,
) -> None:
    deployment.service().kill()
    older = deployment.service(PGFLOWS_APP="tests.conformance.stepless:app")
    engine = deployment.engine()
    instance = await deployment.start()
    found = await waiting(deployment, instance)
    assert found["reason"].startswith("HTTP 404: ")
    assert "no step first" in found["reason"]
    assert await deployment.conn.fetchval("select pgflows.steps_waiting()") == 1
    assert engine.output().count("step first#1 has no outcome yet") == 1
    older.kill()
    deployment.service()
    assert await deployment.ended(instance) == "completed"
    assert await deployment.conn.fetchval("select pgflows.steps_waiting()") == 0
