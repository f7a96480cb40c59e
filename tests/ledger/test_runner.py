"""The one step path: what a call is answered, and what the ledger holds then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from pgflows.errors import NonRetryableError, RetryAfter, SignatureRefused
from pgflows.ledger import Ledger, StepCall
from pgflows.registry import RetryConfig, StepContext, WorkflowApp
from pgflows.runner import Runner, StepOutcome
from pgflows.settings import Settings
from tests.ledger.conftest import BASE_URL, Books, as_json

AT_ONCE = RetryConfig(max_retries=2, initial_delay_seconds=0, jitter=False)
NEVER = RetryConfig(max_retries=0)


class Given(BaseModel):
    value: int = 0

    @field_validator("value")
    @classmethod
    def _not_seven(cls, value: int) -> int:
        if value == 7:
            raise KeyError("seven")
        return value


class Got(BaseModel):
    text: str = ""


class Stubborn(BaseModel):
    value: int = 1

    @field_serializer("value")
    def _never(self, value: int) -> int:
        raise RuntimeError("not today")


class Loose(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    anything: Any = Field(default_factory=object)


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Steps:
    """An app whose steps do what the test says, and what they saw."""

    def __init__(self) -> None:
        self.app = WorkflowApp(Settings(step_timeout=0.5))
        self.seen: list[StepContext] = []

    def add(self, act: Any, *, output: type[BaseModel] = Got, **options: Any) -> None:
        """Registers `act(ctx, input)` as the step `work`."""

        async def work(ctx: StepContext, input: Given) -> Got:
            self.seen.append(ctx)
            found: Got = await act(ctx, input)
            return found

        work.__annotations__["return"] = output
        self.app.step(name="work", **options)(work)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@asynccontextmanager
async def running(
    database: Any, steps: Steps, **settings: Any
) -> AsyncIterator[tuple[Runner, Ledger]]:
    async with (
        Ledger.open(database.dsn, BASE_URL) as ledger,
        Runner(steps.app, ledger, Settings(**settings)) as runner,
    ):
        yield runner, ledger


@pytest.fixture
async def runner(database: Any, steps: Steps) -> AsyncIterator[Runner]:
    async with running(database, steps) as (runner, _):
        yield runner


def error_of(outcome: StepOutcome) -> tuple[str, str]:
    error = as_json(outcome.body)["error"]
    return error["type"], error["message"]


def raising(*errors: BaseException) -> Any:
    """A step that raises these in turn, then returns."""
    left = list(errors)

    async def act(ctx: StepContext, input: Given) -> Got:
        if left:
            raise left.pop(0)
        return Got(text="done")

    return act


async def good(ctx: StepContext, input: Given) -> Got:
    return Got(text=f"got {input.value}")


# -- results


async def test_a_result_is_recorded_and_answered(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    call = await books.call(given={"value": 3})
    outcome = await runner.run_step(call)
    assert (outcome.status, as_json(outcome.body)) == (200, {"text": "got 3"})
    assert (await books.row(call))["output"] == {"text": "got 3"}
    assert await books.attempts(call) == [(1, None)]


async def test_a_step_knows_where_it_is(books: Books, runner: Runner, steps: Steps) -> None:
    steps.add(raising(ValueError()), retry=AT_ONCE)
    call = await books.call()
    await runner.run_step(call)
    one, two = steps.seen
    assert (one.df_id, one.step_key, one.attempt) == (call.df_id, "work#1", 1)
    assert one.instance_id == (await books.row(call))["instance_id"]
    assert two.attempt == 2
    assert one.idempotency_key == two.idempotency_key == f"{one.instance_id}:work#1"


async def test_a_finished_step_answers_again_without_running(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    call = await books.call()
    first, again = await runner.run_step(call), await runner.run_step(call)
    assert as_json(first.body) == as_json(again.body)
    assert len(steps.seen) == 1


async def test_a_sync_step_runs_in_a_thread_and_keeps_none_waiting(
    books: Books, database: Any, steps: Steps
) -> None:
    together = threading.Barrier(20, timeout=5)

    def work(ctx: StepContext, input: Given) -> Got:
        together.wait()
        return Got(text=threading.current_thread().name)

    steps.app.step(name="work", timeout=5)(work)
    calls = await books.ask(await books.start(), *(f"work#{n}" for n in range(20)))
    async with running(database, steps) as (runner, _):
        outcomes = await asyncio.gather(*(runner.run_step(c) for c in calls))
    assert {o.status for o in outcomes} == {200}


# -- failures


@pytest.mark.parametrize(
    ("raised", "name", "says"),
    [
        (NonRetryableError("no credit"), "NonRetryableError", "no credit"),
        (ValueError("bad \0 \ud800 text"), "ValueError", "bad \ufffd ? text"),
        (Mute(), "Mute", "(the error has no text)"),
        (asyncio.CancelledError("inner"), "CancelledError", "inner"),
        (TimeoutError("of the step's own"), "TimeoutError", "of the step's own"),
        (StopAsyncIteration("end"), "StopAsyncIteration", "end"),
        (ExceptionGroup("all", [ValueError("one")]), "ExceptionGroup", "all (1 sub-exception)"),
    ],
)
async def test_an_error_is_recorded_and_answered(
    books: Books, runner: Runner, steps: Steps, raised: BaseException, name: str, says: str
) -> None:
    steps.add(raising(raised), retry=NEVER)
    call = await books.call()
    outcome = await runner.run_step(call)
    assert (outcome.status, error_of(outcome)) == (424, (name, says))
    assert b"Traceback" not in outcome.body
    assert (await books.row(call))["error"] == {"type": name, "message": says}
    assert await books.attempts(call) == [(1, name)]
    again = await runner.run_step(call)
    assert (again.status, again.body) == (outcome.status, outcome.body)


async def test_a_traceback_is_kept(books: Books, runner: Runner, steps: Steps) -> None:
    steps.add(raising(ValueError("here")), retry=NEVER)
    await runner.run_step(await books.call())
    told = await books.owner.fetchval("select traceback from pgflows.attempts")
    assert "Traceback" in told
    assert "ValueError: here" in told


async def test_an_input_that_does_not_fit_is_terminal(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good, retry=AT_ONCE)
    call = await books.call(given={"value": "x"})
    outcome = await runner.run_step(call)
    assert (outcome.status, error_of(outcome)[0]) == (422, "InvalidInput")
    assert error_of(outcome)[1].startswith("value: ")
    assert (await runner.run_step(call)).status == 422
    assert await books.attempts(call) == [(1, "InvalidInput")]
    assert steps.seen == []


async def test_a_validator_that_breaks_is_a_failure(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good, retry=NEVER)
    outcome = await runner.run_step(await books.call(given={"value": 7}))
    assert (outcome.status, error_of(outcome)) == (424, ("KeyError", "'seven'"))


@pytest.mark.parametrize(
    ("output", "model", "says"),
    [
        (None, Got, "the step returned NoneType, not Got"),
        ({"text": "x"}, Got, "the step returned dict, not Got"),
        (Given(), Got, "the step returned Given, not Got"),
        (Got(text="a\0b"), Got, "the result holds the character U+0000"),
        (Got(text="\ud800"), Got, "the result cannot be written as JSON"),
        (Stubborn(), Stubborn, "the result cannot be written as JSON"),
        (Loose(), Loose, "the result cannot be written as JSON"),
        (Loose(anything=10**140_000), Loose, "PostgreSQL cannot store the outcome"),
    ],
    ids=["none", "dict", "model", "nul", "surrogate", "serializer", "object", "integer"],
)
async def test_a_result_that_cannot_be_kept_fails_for_good(
    books: Books, runner: Runner, steps: Steps, output: Any, model: type[BaseModel], says: str
) -> None:
    async def act(ctx: StepContext, input: Given) -> Any:
        return output

    steps.add(act, output=model, retry=AT_ONCE)
    call = await books.call()
    outcome = await runner.run_step(call)
    assert (outcome.status, error_of(outcome)[0]) == (424, "WrongResult")
    assert says in error_of(outcome)[1]
    assert (await books.row(call))["status"] == "failed"
    assert await books.attempts(call) == [(1, "WrongResult")]


async def test_a_text_that_spells_a_nul_is_no_nul(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        return Got(text="\\u0000 and \\\\u0000")

    steps.add(act)
    call = await books.call()
    assert (await runner.run_step(call)).status == 200
    assert (await books.row(call))["output"] == {"text": "\\u0000 and \\\\u0000"}


async def test_a_result_beyond_the_limit_names_step_and_size(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.LARGEST_OUTPUT", 100)

    async def act(ctx: StepContext, input: Given) -> Got:
        return Got(text="x" * 200)

    steps.add(act)
    call = await books.call()
    for _ in range(2):
        outcome = await runner.run_step(call)
        assert outcome.status == 413
        assert error_of(outcome) == (
            "OutputTooLarge", "the result of work has 211 bytes, the limit is 100",
        )  # fmt: skip


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
        await asyncio.sleep(5 if ctx.attempt == 1 else 0)
        return Got()

    steps.add(act, timeout=0.1, retry=AT_ONCE)
    call = await books.call()
    began = time.perf_counter()
    assert (await runner.run_step(call)).status == 200
    assert time.perf_counter() - began < 2
    assert await books.attempts(call) == [(1, "StepTimeout"), (2, None)]


async def test_a_step_says_when_to_try_again(books: Books, runner: Runner, steps: Steps) -> None:
    steps.add(raising(RetryAfter(0.3)), retry=AT_ONCE)
    began = time.perf_counter()
    assert (await runner.run_step(await books.call())).status == 200
    assert 0.3 <= time.perf_counter() - began < 2


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
    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.sleep(0.2)
        return Got(text="once")

    steps.add(act)
    call = await books.call()
    async with running(database, steps) as (one, _), running(database, steps) as (two, _):
        outcomes = await asyncio.gather(
            one.run_step(call), one.run_step(call), two.run_step(call), two.run_step(call)
        )
    assert [(o.status, as_json(o.body)) for o in outcomes] == [(200, {"text": "once"})] * 4
    assert len(steps.seen) == 1


async def test_a_caller_that_goes_away_stops_nothing(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.sleep(0.1)
        return Got()

    steps.add(act)
    call = await books.call()
    caller = asyncio.create_task(runner.run_step(call))
    await asyncio.sleep(0.05)
    caller.cancel()
    assert (await runner.run_step(call)).status == 200
    assert len(steps.seen) == 1


async def test_a_step_beyond_the_deadline_of_its_call_goes_on(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.MARGIN_SECONDS", 30.9)  # of 31 s: the call has 0.1 s

    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.sleep(0.3)
        return Got()

    steps.add(act, timeout=1)
    call = await books.call()
    assert (await runner.run_step(call)).status == 409
    await asyncio.sleep(0.3)
    assert (await runner.run_step(call)).status == 200
    assert len(steps.seen) == 1


async def test_a_service_at_its_limit_says_when_to_come_again(
    books: Books, database: Any, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.sleep(0.2)
        return Got()

    steps.add(act)
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps, step_concurrency=1) as (runner, _):
        busy = asyncio.create_task(runner.run_step(first))
        await asyncio.sleep(0.05)
        refused, joined = await asyncio.gather(runner.run_step(second), runner.run_step(first))
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1.000")
        assert joined.status == (await busy).status == 200
        assert (await runner.run_step(second)).status == 200


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
    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.sleep(0.1 if ctx.step_key == "work#1" else 9)
        return Got()

    steps.add(act, timeout=10)
    short, long = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps) as (runner, _):
        asked = [asyncio.create_task(runner.run_step(c)) for c in (short, long)]
        await asyncio.sleep(0.05)
        await runner.drain(0.3)
        done, late = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(done, StepOutcome)
    assert done.status == 200
    assert "shutting down" in str(late)
    await asyncio.sleep(0.05)
    async with Ledger.open(database.dsn, BASE_URL) as other:
        assert (await other.claim(long)).verdict == "run"
    assert await books.attempts(long) == [(1, "ProcessDied")]
