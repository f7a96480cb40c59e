"""The one step path: attempts, several requests at once, processes and databases that go away."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pgflows.context import StepContext
from pgflows.errors import RetryAfter
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.request import SignedRun, StepRequest
from pgflows.runner.outcome import Cancelled, Completed, Later, Running, Unknown
from pgflows.runner.runner import Runner
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


async def test_runner_makes_attempts_until_one_succeeds(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError("1"), OSError("2")), retry=AT_ONCE)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert await books.attempts(request) == [(1, "ValueError"), (2, "OSError"), (3, None)]


async def test_runner_makes_as_many_attempts_as_the_policy_says(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(*(ValueError(str(n)) for n in range(9))), retry=AT_ONCE)
    request = await books.request()
    outcome = await runner.run_step(request)
    assert error_of(outcome) == ("ValueError", "2")
    assert [n for n, _ in await books.attempts(request)] == [1, 2, 3]


async def test_step_without_a_policy_has_that_of_its_workflow(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError(), ValueError()))
    request = await books.request(retry={"max_retries": 1, "initial_delay_seconds": 0})
    assert error_of(await runner.run_step(request))[0] == "ValueError"
    assert len(steps.seen) == 2


async def test_attempt_ends_at_its_time_limit(books: Books, runner: Runner, steps: Steps) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return Got()

    steps.add(act, timeout=0.1, retry=AT_ONCE)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert await books.attempts(request) == [(1, "StepTimeout"), (2, None)]


async def test_step_may_say_when_it_is_tried_again(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(RetryAfter(0.3)), retry=AT_ONCE)
    began = time.perf_counter()
    assert isinstance(await runner.run_step(await books.request()), Completed)
    assert time.perf_counter() - began >= 0.3


async def test_back_off_beyond_the_call_is_left_to_the_engine(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(RetryAfter(300)))
    request = await books.request()
    for _ in range(2):
        outcome = await runner.run_step(request)
        assert isinstance(outcome, Later)
        assert 295 < outcome.seconds <= 300
    assert (await books.row(request))["status"] == "requested"
    await books.owner.execute("update pgflows.step_runs set retry_at = now()")
    assert isinstance(await runner.run_step(request), Completed)
    assert await books.attempts(request) == [(1, "RetryAfter"), (2, None)]


async def test_request_waits_for_an_attempt_that_is_due_soon(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(RetryAfter(300)))
    request = await books.request()
    await runner.run_step(request)
    await books.owner.execute("update pgflows.step_runs set retry_at = now() + interval '0.3 s'")
    assert isinstance(await runner.run_step(request), Completed)


# -- several requests


async def test_requests_at_the_same_time_share_one_attempt(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    request = await books.request()
    async with running(database, steps) as (one, _), running(database, steps) as (two, _):
        asked = [asyncio.create_task(r.run_step(request)) for r in (one, one, two, two)]
        await held.begun.wait()
        held.end.set()
        outcomes = await asyncio.gather(*asked)
    assert [as_json(o.output) for o in outcomes if isinstance(o, Completed)] == [
        {"text": "held"}
    ] * 4
    assert len(steps.seen) == 1


async def test_step_goes_on_when_its_caller_goes_away(
    books: Books, runner: Runner, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    request = await books.request()
    caller = asyncio.create_task(runner.run_step(request))
    await held.begun.wait()
    caller.cancel()
    held.end.set()
    assert isinstance(await runner.run_step(request), Completed)
    assert len(steps.seen) == 1


async def test_step_goes_on_beyond_the_deadline_of_its_call(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.runner.MARGIN_SECONDS", 59.9)  # of 60 s: 0.1 s are left
    held = Held()
    steps.add(held, timeout=30)
    request = await books.request()
    assert await runner.run_step(request) == Running()
    held.end.set()

    async def answered() -> bool:
        return isinstance(await runner.run_step(request), Completed)

    await until(answered)
    assert len(steps.seen) == 1


async def test_runner_without_a_free_slot_says_when_to_ask_again(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps, step_concurrency=1) as (runner, _):
        busy = [asyncio.create_task(runner.run_step(first)) for _ in range(2)]
        await held.begun.wait()
        refused = await runner.run_step(second)
        assert refused == Later(1.0, "this service runs as many steps as it may")
        held.end.set()
        assert [type(o) for o in await asyncio.gather(*busy)] == [Completed, Completed]
        assert isinstance(await runner.run_step(second), Completed)


async def test_request_waits_for_a_slot_that_becomes_free_soon(
    books: Books, database: Any, steps: Steps
) -> None:
    held = Held()
    steps.add(held)
    one, two, three = await books.ask(await books.start(), "work#1", "work#2", "work#3")
    async with running(database, steps, step_concurrency=1) as (runner, _):
        requests = [asyncio.create_task(runner.run_step(c)) for c in (one, two, two, three)]
        await held.begun.wait()
        held.end.set()
        assert [type(o) for o in await asyncio.gather(*requests)] == [Completed] * 4
    for request in (one, two, three):
        assert await books.attempts(request) == [(1, None)]


async def test_runner_says_that_an_instance_was_cancelled(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.owner.execute("select df.cancel($1)", request.df_id)
        return Got()

    steps.add(act)
    request = await books.request()
    assert await runner.run_step(request) == Cancelled()
    assert await runner.run_step(request) == Cancelled()
    assert (await books.row(request))["status"] == "cancelled"


async def test_request_that_the_run_did_not_make_is_unknown(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    run = await books.start()
    request = StepRequest(SignedRun(run.df_id, "key"), "work#1", "work", 1, b"{}")
    assert await runner.run_step(request) == Unknown()


# -- the process and the database come and go


async def test_outcome_whose_claim_the_server_forgot_is_recorded(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.owner.execute(
            "update pgflows.step_runs set status = 'requested', attempts = 0, service_id = null"
        )
        return Got(text="kept")

    steps.add(act)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert (await books.row(request))["output"] == {"text": "kept"}
    assert len(steps.seen) == 1


async def test_step_outlives_the_database_session_of_its_service(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await books.cut_sessions("pgflows claims", "pgflows records")
        return Got()

    steps.add(act)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert await books.attempts(request) == [(1, None)]


async def test_runner_drains_and_releases_what_does_not_end(
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
    assert isinstance(done, Completed)
    assert late == Later(0.0, "the service stopped before the attempt ended")
    await books.until_services(0)
    async with Ledger.open(database.dsn, BASE_URL) as other:
        assert (await other.claim(long)).verdict == "run"
    assert await books.attempts(long) == [(1, "Interrupted")]
