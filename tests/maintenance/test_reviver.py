"""Runs that the extension failed or lost: started again, failed for good, or left until later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgflows.database.connections import connect
from pgflows.maintenance.reviver import Reviver
from tests.maintenance.conftest import SETTLE, STEP_CALL, Beside

LONG_AGO = 120
BEGIN_STEP = "update pgflows.step_runs set status = 'running', service_id = $1"
OPEN_SERVICE = "select pgflows.open_service('http://s')"
NO_OUTCOME = "SQL execution failed: error returned from database: step work#1 has no outcome"
OLDER = "update pgflows.df_runs set started_at = started_at - interval '10 min'"


async def test_reviver_starts_a_run_again_whose_service_was_away(beside: Beside) -> None:
    run = await beside.start({"a": 1})
    await beside.fail_call(run)
    assert await beside.judge(run) is None  # one second after the failure at the earliest
    await beside.fail_call(run, seconds_ago=2)
    assert await beside.judge(run) == "started again"
    (before, _), (now, reason) = await beside.runs(run)
    assert before != now
    assert reason == "HTTP connection failed: http://s/steps/work"
    assert (await beside.state(run))[0] == "pending"
    assert await beside.judge(run) is None


async def test_reviver_gives_up_after_ten_starts_without_a_record(beside: Beside) -> None:
    run = await beside.start()
    for _ in range(10):
        await beside.fail_call(await beside.newest(run), seconds_ago=LONG_AGO)
        assert await beside.judge(run) == "started again"
    await beside.fail_call(await beside.newest(run), seconds_ago=LONG_AGO)
    assert await beside.judge(run) == "failed"
    status, error = await beside.state(run)
    assert status == "failed"
    assert error["message"] == (
        "HTTP connection failed: http://s/steps/work "
        "(started again 10 times, and nothing was recorded since)"
    )


async def test_reviver_waits_longer_each_time_until_something_is_recorded(beside: Beside) -> None:
    run = await beside.start()
    for _ in range(3):
        await beside.fail_call(await beside.newest(run), seconds_ago=LONG_AGO)
        assert await beside.judge(run) == "started again"
    newest = await beside.newest(run)
    await beside.fail_call(newest, seconds_ago=5)
    assert await beside.judge(run) is None
    await beside.ask(newest, "work#1")
    await beside.owner.execute("update pgflows.step_runs set started_at = clock_timestamp()")
    assert await beside.judge(run) == "started again"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('{"url": "http://other/", "headers": {}}', "HTTP connection failed: http://other/"),
        (STEP_CALL, "Blocked: 's' is not in the allowed endpoint list."),
    ],
)
async def test_reviver_fails_a_call_that_would_fail_again(
    beside: Beside, query: str, message: str
) -> None:
    run = await beside.start()
    await beside.fail(run, message, node_type="HTTP", query=query, seconds_ago=LONG_AGO)
    assert await beside.judge(run) == "failed"
    assert await beside.state(run) == ("failed", {"type": "FlowFailed", "message": message})


async def test_reviver_fails_a_run_whose_step_failed_with_the_error_of_the_step(
    beside: Beside,
) -> None:
    run = await beside.start()
    await beside.ask(run, "work#1")
    error = {"type": "LookupError", "message": "no"}
    await beside.owner.execute(SETTLE.replace("$2", "'failed'").replace("$3", "$1"), error)
    text = "SQL execution failed: error returned from database: step work#1 failed: LookupError: no"
    await beside.fail(run, text)
    assert await beside.judge(run) == "failed"
    assert await beside.state(run) == ("failed", {**error, "step_key": "work#1"})


async def test_reviver_fails_a_statement_that_fails_twice_with_the_same_text(
    beside: Beside,
) -> None:
    run = await beside.start()
    text = "SQL execution failed: error returned from database: division by zero"
    await beside.fail(run, text, seconds_ago=LONG_AGO)
    assert await beside.judge(run) == "started again"
    await beside.fail(await beside.newest(run), text, seconds_ago=LONG_AGO)
    assert await beside.judge(run) == "failed"
    assert (await beside.state(run))[1]["message"] == text


async def test_reviver_waits_for_a_step_that_a_live_service_runs(beside: Beside) -> None:
    run = await beside.start()
    await beside.ask(run, "work#1")
    service = await connect(beside.database.dsn)
    await beside.owner.execute(BEGIN_STEP, await service.fetchval(OPEN_SERVICE))
    await beside.fail(run, NO_OUTCOME, seconds_ago=LONG_AGO)
    assert await beside.judge(run) is None
    await service.close()
    await beside.until_services(0)
    assert await beside.judge(run) == "started again"


async def test_reviver_waits_for_the_next_attempt_of_a_step(beside: Beside) -> None:
    run = await beside.start()
    await beside.ask(run, "work#1")
    due = "update pgflows.step_runs set status = 'requested', retry_at = $1"
    await beside.owner.execute(due, datetime.now(UTC) + timedelta(hours=1))
    await beside.fail(run, NO_OUTCOME, seconds_ago=LONG_AGO)
    assert await beside.judge(run) is None
    await beside.owner.execute(due, datetime.now(UTC) - timedelta(seconds=60))
    assert await beside.judge(run) == "started again"


async def test_reviver_goes_on_at_once_with_a_step_that_completed_meanwhile(
    beside: Beside,
) -> None:
    run = await beside.start()
    await beside.ask(run, "work#1")
    await beside.owner.execute("update pgflows.step_runs set status = 'completed', output = '{}'")
    await beside.fail(run, NO_OUTCOME)
    assert await beside.judge(run) == "started again"


async def test_reviver_finds_a_run_that_the_orchestrator_does_not_know(beside: Beside) -> None:
    run = await beside.start()
    await beside.owner.execute("delete from df.instances where id = $1", run.df_id)
    await beside.owner.execute(OLDER)
    conn = await connect(beside.database.dsn)
    await Reviver().revive(conn)
    await conn.close()
    reasons = [reason for _, reason in await beside.runs(run)]
    assert reasons == [None, f"the orchestrator does not know run {run.df_id}"]


async def test_reviver_starts_nothing_again_that_was_cancelled(beside: Beside) -> None:
    run = await beside.start()
    await beside.fail_call(run, seconds_ago=LONG_AGO)
    await beside.owner.execute("select pgflows.cancel_instance($1)", str(run.instance_id))
    assert await beside.judge(run) is None
    assert len(await beside.runs(run)) == 1


async def test_reviver_goes_on_after_a_run_that_cannot_be_started(
    beside: Beside, caplog: pytest.LogCaptureFixture
) -> None:
    lame, run = await beside.start(), await beside.start()
    await beside.define(version="2")
    await beside.owner.execute(
        "update pgflows.instances set version = '3' where instance_id = $1", lame.instance_id
    )
    for each in (lame, run):
        await beside.fail_call(each, seconds_ago=LONG_AGO)
    conn, reviver = await connect(beside.database.dsn), Reviver()
    await reviver.revive(conn)
    await reviver.revive(conn)
    await conn.close()
    assert len(await beside.runs(run)) == 2
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert errors == [
        f"instance {lame.instance_id} cannot be started again: "
        "workflow w version 3 is not defined any more"
    ]
