"""The one step path: attempts, several calls at once, processes and databases that go away."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pgflows.errors import RetryAfter, SignatureRefused
from pgflows.ledger.ledger import Ledger, StepCall
from pgflows.registry import StepContext
from pgflows.runner.runner import Runner, StepOutcome
from tests.conftest import until
from tests.ledger.conftest import Books, as_json
from tests.ledger.steps import (
    AT_ONCE,
    BASE_URL,
    Given,
    Got,
    Held,
    Steps,
    error_of,
    good,
    raising,
    running,
)

# -- attempts


async def test_attempts_are_made_until_one_ends_well(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError("1"), OSError("2")), retry=AT_ONCE)
    call = await books.call()
    assert (await runner.run_step(call)).status == 200
    assert await books.attempts(call) == [(1, "ValueError"), (2, "OSError"), (3, None)]


async def test_attempts_end_with_the_policy(books: Books, runner: Runner, steps: Steps) -> None:
    steps.add(raising(*(ValueError(str(n)) for n in range(9))), retry=AT_ONCE)
    call = await books.call()
    outcome = await runner.run_step(call)
    assert error_of(outcome) == ("ValueError", "2")
    assert [n for n, _ in await books.attempts(call)] == [1, 2, 3]


async def test_the_workflow_gives_a_policy_to_steps_without_one(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError(), ValueError()))
    call = await books.call(retry={"max_retries": 1, "initial_delay_seconds": 0})
    assert (await runner.run_step(call)).status == 424
    assert len(steps.seen) == 2


async def test_an_attempt_has_a_time_limit(books: Books, runner: Runner, steps: Steps) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return Got()

    steps.add(act, timeout=0.1, retry=AT_ONCE)
    call = await books.call()
    assert (await runner.run_step(call)).status == 200
    assert await books.attempts(call) == [(1, "StepTimeout"), (2, None)]


async def test_a_step_says_when_to_try_again(books: Books, runner: Runner, steps: Steps) -> None:
    steps.add(raising(RetryAfter(0.3)), retry=AT_ONCE)
    began = time.perf_counter()
    assert (await runner.run_step(await books.call())).status == 200
    assert time.perf_counter() - began >= 0.3


async def test_a_back_off_beyond_the_call_is_left_to_the_engine(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(RetryAfter(300)))
    call = await books.call()
    for _ in range(2):
        outcome = await runner.run_step(call)
        assert outcome.status == 429
        assert 295 < float(outcome.headers["Retry-After"]) <= 300
    assert (await books.row(call))["status"] == "requested"
    await books.owner.execute("update pgflows.step_runs set retry_at = now()")
    assert (await runner.run_step(call)).status == 200
    assert await books.attempts(call) == [(1, "RetryAfter"), (2, None)]


async def test_a_call_waits_for_an_attempt_that_is_due_soon(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(RetryAfter(300)))
    call = await books.call()
    await runner.run_step(call)
    await books.owner.execute("update pgflows.step_runs set retry_at = now() + interval '0.3 s'")
    assert (await runner.run_step(call)).status == 200


# -- several calls


async def test_calls_at_the_same_time_share_one_run(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    call = await books.call()
    async with running(database, steps) as (one, _), running(database, steps) as (two, _):
        asked = [asyncio.create_task(r.run_step(call)) for r in (one, one, two, two)]
        await held.begun.wait()
        held.end.set()
        outcomes = await asyncio.gather(*asked)
    assert [(o.status, as_json(o.body)) for o in outcomes] == [(200, {"text": "held"})] * 4
    assert len(steps.seen) == 1


async def test_a_caller_that_goes_away_stops_nothing(
    books: Books, runner: Runner, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    call = await books.call()
    caller = asyncio.create_task(runner.run_step(call))
    await held.begun.wait()
    caller.cancel()
    held.end.set()
    assert (await runner.run_step(call)).status == 200
    assert len(steps.seen) == 1


async def test_a_step_beyond_the_deadline_of_its_call_goes_on(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.runner.MARGIN_SECONDS", 59.9)  # of 60 s: the call has 0.1 s
    held = Held()
    steps.add(held, timeout=30)
    call = await books.call()
    assert (await runner.run_step(call)).status == 409
    held.end.set()

    async def answered() -> bool:
        return (await runner.run_step(call)).status == 200

    await until(answered)
    assert len(steps.seen) == 1


async def test_a_service_at_its_limit_says_when_to_come_again(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps, step_concurrency=1) as (runner, _):
        busy = [asyncio.create_task(runner.run_step(first)) for _ in range(2)]
        await held.begun.wait()
        refused = await runner.run_step(second)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1.000")
        held.end.set()
        assert [outcome.status for outcome in await asyncio.gather(*busy)] == [200, 200]
        assert (await runner.run_step(second)).status == 200


async def test_a_place_that_becomes_free_soon_is_waited_for(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    one, two, three = await books.ask(await books.start(), "work#1", "work#2", "work#3")
    async with running(database, steps, step_concurrency=1) as (runner, _):
        calls = [asyncio.create_task(runner.run_step(c)) for c in (one, two, two, three)]
        await held.begun.wait()
        held.end.set()
        assert [outcome.status for outcome in await asyncio.gather(*calls)] == [200] * 4
    for call in (one, two, three):
        assert await books.attempts(call) == [(1, None)]


async def test_a_cancelled_instance_is_gone(books: Books, runner: Runner, steps: Steps) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.owner.execute("select df.cancel($1)", call.df_id)
        return Got()

    steps.add(act)
    call = await books.call()
    assert (await runner.run_step(call)).status == 410
    assert (await runner.run_step(call)).status == 410
    assert (await books.row(call))["status"] == "cancelled"


async def test_a_call_that_nobody_asked_for_is_refused(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    run = await books.start()
    with pytest.raises(SignatureRefused):
        await runner.run_step(StepCall(run.df_id, "work", "work#1", "1", "v1.k.0", b"{}"))


# -- the process and the database come and go


async def test_an_outcome_whose_claim_was_forgotten_is_recorded(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.owner.execute(
            "update pgflows.step_runs set status = 'requested', attempts = 0, service_id = null"
        )
        return Got(text="kept")

    steps.add(act)
    call = await books.call()
    assert (await runner.run_step(call)).status == 200
    assert (await books.row(call))["output"] == {"text": "kept"}
    assert len(steps.seen) == 1


async def test_a_step_outlives_its_database_session(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.cut_sessions("pgflows claims", "pgflows records")
        return Got()

    steps.add(act)
    call = await books.call()
    assert (await runner.run_step(call)).status == 200
    assert await books.attempts(call) == [(1, None)]


async def test_draining_lets_steps_end_and_frees_the_others(
    books: Books, database: Any, steps: Steps
) -> None:
    short_one, long_one = Held(), Held()

    async def act(ctx: StepContext, input: Given) -> Got:
        return await (short_one if ctx.step_key == "work#1" else long_one)(ctx, input)

    steps.add(act, timeout=30)
    short, long = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps) as (runner, _):
        asked = [asyncio.create_task(runner.run_step(c)) for c in (short, long)]
        await asyncio.gather(short_one.begun.wait(), long_one.begun.wait())
        short_one.end.set()
        await runner.drain(1.0)
        done, late = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(done, StepOutcome)
    assert done.status == 200
    assert "shutting down" in str(late)
    await books.until_services(0)
    async with Ledger.open(database.dsn, BASE_URL) as other:
        assert (await other.claim(long)).verdict == "run"
    assert await books.attempts(long) == [(1, "ProcessDied")]
