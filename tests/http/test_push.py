"""POST /steps/{name}: what is signed runs once, everything else is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import httpx
import pytest

from pgflows import headers
from pgflows.http import steps
from tests.conftest import until

ORDER = {"order_id": "ORD-1", "amount": 0.0}
PUT = "select * from pgflows.put($1, 'main', 0, '{}', true, $2)"
LIMIT = {"left_behind_limit": 100}
REFUSED = "urn:pgflows:problem:signature-refused"


@dataclass(frozen=True)
class Push:
    """A request as an engine makes it."""

    step: str
    df_id: str
    step_key: str
    seq: str
    signature: str
    body: str

    async def send(self, http: httpx.AsyncClient) -> httpx.Response:
        return await http.post(
            f"/steps/{self.step}",
            content=self.body,
            headers={
                "Content-Type": "application/json",
                headers.INSTANCE: self.df_id,
                headers.STEP_KEY: self.step_key,
                headers.SEQ: self.seq,
                headers.SIGNATURE: self.signature,
            },
        )


@dataclass
class Deployment:
    """A service without an engine, and the database's side of its calls."""

    http: httpx.AsyncClient
    run: asyncpg.Connection[Any]
    owner: asyncpg.Connection[Any]

    async def signed(self, step: str = "charge", given: Any = None) -> Push:
        """The push of a step of a fresh run."""
        start = await self.http.post("/workflows/process_order/start", json={"input": ORDER})
        df_id = start.json()["df_id"]
        asked = [{"key": f"{step}#1", "step": step, "var": "x", "input": given or ORDER}]
        row = await self.run.fetchrow(PUT, df_id, json.dumps(asked))
        assert row is not None
        first = [json.loads(row[name])[0] for name in ("keys", "signatures", "bodies")]
        return Push(step, df_id, first[0], str(row["seq"]), first[1], first[2])

    async def attempts(self, push: Push) -> list[str | None]:
        history = (await self.http.get(f"/instances/{push.df_id}/history")).json()
        return [attempt["error_type"] for attempt in history["steps"][0]["attempts"]]


@pytest.fixture
async def deployment(http: httpx.AsyncClient, database: Any) -> AsyncIterator[Deployment]:
    run, owner = await asyncpg.connect(database.run_dsn), await asyncpg.connect(database.dsn)
    yield Deployment(http, run, owner)
    await run.close()
    await owner.close()


async def test_push_that_is_signed_runs_the_step_and_records_it(deployment: Deployment) -> None:
    push = await deployment.signed()
    response = await push.send(deployment.http)
    assert response.status_code == 200
    assert response.json() == {"order_id": "ORD-1", "confirmation": "CHG-ORD-1"}
    assert await deployment.attempts(push) == [None]


async def test_a_push_of_a_finished_step_runs_nothing_again(
    deployment: Deployment,
) -> None:
    push = await deployment.signed()
    first, again = await push.send(deployment.http), await push.send(deployment.http)
    assert again.status_code == 200
    assert again.json() == first.json()
    assert await deployment.attempts(push) == [None]


async def test_pushes_at_once_run_the_step_once(deployment: Deployment) -> None:
    push = await deployment.signed("dawdle", ORDER | {"amount": 0.2})
    first, second = await asyncio.gather(push.send(deployment.http), push.send(deployment.http))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert await deployment.attempts(push) == [None]


async def test_push_of_a_step_that_fails_is_424_without_a_traceback(deployment: Deployment) -> None:
    response = await (await deployment.signed("refuse")).send(deployment.http)
    assert response.status_code == 424
    assert response.json()["error"] == {
        "type": "NonRetryableError",
        "message": "no credit for ORD-1",
    }
    assert "Traceback" not in response.text


async def test_push_with_an_input_that_does_not_fit_is_422(deployment: Deployment) -> None:
    response = await (await deployment.signed("charge", {"order_id": 7})).send(deployment.http)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "InvalidInput"


async def test_push_for_a_cancelled_instance_is_410(deployment: Deployment) -> None:
    push = await deployment.signed()
    await deployment.http.post(f"/instances/{push.df_id}/cancel")
    assert (await push.send(deployment.http)).status_code == 410
    assert await deployment.attempts(push) == []


async def test_push_that_is_not_exactly_what_was_signed_is_401(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    push, other = await deployment.signed(), await deployment.signed()
    version, key_id, digest = push.signature.split(".")
    wrong = {
        "body": replace(push, body=push.body.replace("ORD-1", "ORD-2")),
        "whitespace": replace(push, body=push.body + " "),
        "no body": replace(push, body=""),
        "step": replace(push, step="ship"),
        "instance": replace(push, df_id=other.df_id),
        "step key": replace(push, step_key="charge#2"),
        "seq": replace(push, seq="2"),
        "seq with a zero": replace(push, seq=f"0{push.seq}"),
        "no seq": replace(push, seq=""),
        "seq beyond integers": replace(push, seq="9" * 30),
        "signature of another run": replace(push, signature=other.signature),
        "no signature": replace(push, signature=""),
        "another version": replace(push, signature=f"v2.{key_id}.{digest}"),
        "unknown key": replace(push, signature=f"{version}.0000000000ab.{digest}"),
        "no key": replace(push, signature=f"{version}..{digest}"),
        "digest alone": replace(push, signature=digest),
        "half a digest": replace(push, signature=push.signature[:-32]),
        "upper case": replace(push, signature=f"{version}.{key_id}.{digest.upper()}"),
        "another digest": replace(push, signature=f"{version}.{key_id}.{'0' * 64}"),
    }
    for what, tampered in wrong.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, "pgflows.audit"):
            response = await tampered.send(deployment.http)
        assert (response.status_code, response.json()["type"]) == (401, REFUSED), what
        assert len(caplog.records) == 1, what
        assert tampered.signature == "" or tampered.signature not in caplog.text, what
    assert await deployment.attempts(push) == []
    assert (await push.send(deployment.http)).status_code == 200


async def test_push_without_any_header_is_401(deployment: Deployment) -> None:
    response = await deployment.http.post("/steps/charge", json=ORDER)
    assert (response.status_code, response.json()["type"]) == (401, REFUSED)


async def test_push_of_a_step_that_ended_long_ago_is_401(deployment: Deployment) -> None:
    push = await deployment.signed()
    await push.send(deployment.http)
    await deployment.owner.execute(
        "update pgflows.step_runs set requested_at = requested_at - interval '6 minutes', "
        "ended_at = ended_at - interval '6 minutes'"
    )
    response = await push.send(deployment.http)
    assert (response.status_code, response.json()["type"]) == (401, REFUSED)


async def test_push_of_an_unknown_step_is_404_only_if_it_was_signed(deployment: Deployment) -> None:
    push = await deployment.signed("ghost")
    signed = await push.send(deployment.http)
    unsigned = await replace(push, signature="").send(deployment.http)
    assert (signed.status_code, unsigned.status_code) == (404, 401)
    assert signed.json()["type"] == "urn:pgflows:problem:step-not-found"


async def test_pushes_go_on_while_keys_are_rotated(deployment: Deployment) -> None:
    before = await deployment.signed()
    await deployment.owner.execute("select pgflows.rotate_key()")
    after = await deployment.signed()
    assert before.signature.split(".")[1] != after.signature.split(".")[1]
    assert (await before.send(deployment.http)).status_code == 200
    assert (await after.send(deployment.http)).status_code == 200


async def test_push_with_a_body_beyond_the_limit_is_413(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MAX_PUSH", 10)
    response = await (await deployment.signed()).send(deployment.http)
    assert response.status_code == 413


async def test_steps_of_a_service_are_shown_in_stats_and_metrics(deployment: Deployment) -> None:
    push = await deployment.signed("dawdle", ORDER | {"amount": 1.0})
    answer = asyncio.create_task(push.send(deployment.http))

    async def running() -> bool:
        stats = (await deployment.http.get("/stats")).json()["steps_here"]
        return bool(stats == {"running": 1, "slots": 100, "left_behind": 0} | LIMIT)

    await until(running)
    metrics = (await deployment.http.get("/metrics")).text
    assert "pgflows_steps_running 1.0" in metrics
    assert "pgflows_steps_left_behind 0.0" in metrics
    assert (await answer).status_code == 200
