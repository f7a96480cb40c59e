"""SIGKILL at each named point, then recovery: every run ends, every step is recorded once."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import Deployment

ENGINE_POINTS = [
    "before_claim",
    "after_claim_instance",
    "before_batch",
    "before_batch:3",
    "after_batch",
    "after_batch:4",
    "after_answer",
    "after_answer:2",
]
SERVICE_POINTS = {
    "after_claim:2": ["ProcessDied", None],
    "in_step:2": ["ProcessDied", None],
    "after_effect:2": ["ProcessDied", None],
    "after_record:2": [None],
}


@pytest.mark.parametrize("point", ENGINE_POINTS)
async def test_an_engine_killed_there_is_replaced(deployment: Deployment, point: str) -> None:
    deployment.service()
    engine = deployment.engine(PGFLOWS_CRASH_AT=point)
    instance = await deployment.start()
    engine.wait_for_crash()
    await deployment.forget_dead_engines()
    deployment.engine()
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)
    # a call that was answered is not run again: the ledger answers it
    assert await deployment.effects(instance) == 3


@pytest.mark.parametrize("point", SERVICE_POINTS)
async def test_a_service_killed_there_is_replaced(deployment: Deployment, point: str) -> None:
    service = deployment.service(PGFLOWS_CRASH_AT=point)
    deployment.engine()
    instance = await deployment.start()
    service.wait_for_crash()
    deployment.service()
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)
    attempts = await deployment.attempts(instance)
    assert attempts["second#1"] == SERVICE_POINTS[point]
    ran_twice = point == "after_effect:2"
    assert await deployment.effects(instance, "second#1") == (2 if ran_twice else 1)
