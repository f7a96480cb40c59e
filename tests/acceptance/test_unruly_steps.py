"""Real processes and steps that end, kill or block them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import pytest

from tests.acceptance.conftest import Deployment
from tests.conftest import Process, until

APP = "tests.acceptance.unruly:app"


async def start(deployment: Deployment, workflow: str, seconds: float = 0) -> Any:
    given = json.dumps({"seconds": seconds})
    return await deployment.conn.fetchval("select pgflows.start($1, $2)", workflow, given)


async def failure(deployment: Deployment, instance: Any) -> Any:
    query = "select error from pgflows.step_runs where instance_id = $1"
    return json.loads(await deployment.conn.fetchval(query, instance))


@pytest.mark.slow
async def test_step_that_kills_its_process_fails_and_its_neighbours_complete(
    deployment: Deployment,
) -> None:
    deployment.engine()
    service = deployment.service(PGFLOWS_APP=APP)
    neighbours = [await start(deployment, "waiting", 0.5) for _ in range(4)]
    killer = await start(deployment, "killing", 0.2)
    while await deployment.status(killer) in ("pending", "running"):
        assert service.popen is not None
        if service.popen.poll() is not None:
            service = deployment.service(PGFLOWS_APP=APP)
        await asyncio.sleep(0.05)
    assert await deployment.status(killer) == "failed"
    assert (await failure(deployment, killer))["type"] == "ProcessDied"
    assert (await deployment.attempts(killer))["kill#1"] == ["ProcessDied"] * 5
    for neighbour in neighbours:
        assert await deployment.ended(neighbour) == "completed"


async def test_steps_that_exit_fail_and_the_service_goes_on(deployment: Deployment) -> None:
    deployment.engine()
    service = deployment.service(PGFLOWS_APP=APP)
    neighbour = await start(deployment, "waiting", 1)
    leaving, interrupting = [await start(deployment, w) for w in ("leaving", "interrupting")]
    assert await deployment.ended(leaving) == "failed"
    assert await deployment.ended(interrupting) == "failed"
    assert (await deployment.attempts(leaving))["leave#1"] == ["SystemExit"] * 2
    assert (await deployment.attempts(interrupting))["interrupt#1"] == ["KeyboardInterrupt"] * 2
    assert await deployment.ended(neighbour) == "completed"
    assert service.popen is not None
    assert service.popen.poll() is None


def left_behind(service: Process, count: int) -> Any:
    async def look() -> bool:
        return service.output().count("goes on past its time limit") >= count

    return look


async def test_service_ends_in_time_although_steps_block(deployment: Deployment) -> None:
    deployment.engine()
    service = deployment.service(PGFLOWS_APP=APP)
    workflows = ("blocking", "blocking_elsewhere", "ignoring")
    for workflow in workflows:
        assert await deployment.ended(await start(deployment, workflow, 600)) == "failed"
    await until(left_behind(service, 2), what="two functions left behind")
    began = time.monotonic()
    await asyncio.to_thread(service.kill, signal.SIGTERM)
    assert time.monotonic() - began < 10
    assert service.popen is not None
    assert service.popen.returncode == 0, service.output()
