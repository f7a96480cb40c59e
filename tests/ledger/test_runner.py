"""The one step path: what a request is answered, and what the ledger holds then."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from pgflows.context import StepContext
from pgflows.errors import NonRetryableError
from pgflows.runner.outcome import Completed
from pgflows.runner.runner import Runner
from tests.ledger.conftest import Books, as_json
from tests.ledger.steps import (
    AT_ONCE,
    NEVER,
    Constants,
    Given,
    Got,
    Loose,
    Mute,
    Steps,
    Stubborn,
    error_of,
    good,
    nested,
    raising,
    running,
)


async def test_runner_records_and_answers_a_result(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    request = await books.request(given={"value": 3})
    outcome = await runner.run_step(request)
    assert outcome == Completed(b'{"text":"got 3"}')
    assert (await books.row(request))["output"] == {"text": "got 3"}
    assert await books.attempts(request) == [(1, None)]


async def test_step_context_says_where_the_step_is(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError()), retry=AT_ONCE)
    request = await books.request()
    await runner.run_step(request)
    one, two = steps.seen
    assert (one.df_id, one.step_key, one.attempt) == (request.df_id, "work#1", 1)
    assert one.instance_id == (await books.row(request))["instance_id"]
    assert two.attempt == 2
    assert one.idempotency_key == two.idempotency_key == f"{one.instance_id}:work#1"


async def test_runner_answers_a_finished_step_again_without_running(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good)
    request = await books.request()
    first, again = await runner.run_step(request), await runner.run_step(request)
    assert isinstance(first, Completed)
    assert isinstance(again, Completed)
    assert as_json(first.output) == as_json(again.output)
    assert len(steps.seen) == 1


async def test_sync_steps_run_in_threads_side_by_side(
    books: Books, database: Any, steps: Steps
) -> None:
    together = threading.Barrier(20, timeout=5)

    def work(ctx: StepContext, input: Given) -> Got:
        together.wait()
        return Got(text=threading.current_thread().name)

    steps.app.step(name="work", timeout=5)(work)
    requests = await books.ask(await books.start(), *(f"work#{n}" for n in range(20)))
    async with running(database, steps) as (runner, _):
        outcomes = await asyncio.gather(*(runner.run_step(c) for c in requests))
    assert {type(o) for o in outcomes} == {Completed}


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
async def test_runner_records_and_answers_an_error(
    books: Books, runner: Runner, steps: Steps, raised: BaseException, name: str, says: str
) -> None:
    steps.add(raising(raised), retry=NEVER)
    request = await books.request()
    outcome = await runner.run_step(request)
    assert error_of(outcome) == (name, says)
    assert (await books.row(request))["error"] == {"type": name, "message": says}
    assert await books.attempts(request) == [(1, name)]
    again = await runner.run_step(request)
    assert error_of(again) == (name, says)


async def test_ledger_keeps_the_traceback_of_an_attempt(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(ValueError("here")), retry=NEVER)
    await runner.run_step(await books.request())
    told = await books.owner.fetchval("select traceback from pgflows.attempts")
    assert "Traceback" in told
    assert "ValueError: here" in told


async def test_input_that_does_not_fit_fails_the_step_for_good(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good, retry=AT_ONCE)
    request = await books.request(given={"value": "x"})
    outcome = await runner.run_step(request)
    assert error_of(outcome)[0] == "InvalidInput"
    assert error_of(outcome)[1].startswith("value: ")
    assert error_of(await runner.run_step(request)) == error_of(outcome)
    assert await books.attempts(request) == [(1, "InvalidInput")]
    assert steps.seen == []


async def test_validator_that_raises_is_a_failed_attempt(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(good, retry=NEVER)
    outcome = await runner.run_step(await books.request(given={"value": 7}))
    assert error_of(outcome) == ("KeyError", "'seven'")


@pytest.mark.parametrize(
    ("output", "model", "says"),
    [
        (None, Got, "the step returned NoneType, not Got"),
        ({"text": "x"}, Got, "the step returned dict, not Got"),
        (Given(), Got, "the step returned Given, not Got"),
        (Got(text="a\0b"), Got, "step work cannot be kept: the character U+0000 in text"),
        (Got(text="\ud800"), Got, "half of a surrogate pair in text"),
        (Loose(anything=[0, {"a": "\ud800"}]), Loose, "surrogate pair in anything[1].a"),
        (Stubborn(), Stubborn, "the result of step work cannot be written as JSON: "),
        (Loose(), Loose, "the result of step work cannot be written as JSON: "),
        (Loose(anything=10**4000), Loose, "a number of more than 4000 digits in anything"),
        (Loose(anything=math.nan), Loose, "the number nan in anything"),
        (Loose(anything={"a": [1.5, -math.inf]}), Loose, "the number -inf in anything.a[1]"),
        (Constants(number=math.inf), Constants, "the number inf in number"),
        (Loose(anything=nested(100)), Loose, "more than 100 levels of nesting in anything[0]"),
        (Loose(anything=nested(3000)), Loose, "more than 100 levels of nesting in anything[0]"),
    ],
    ids=[
        *("none", "dict", "model", "nul", "surrogate", "deep surrogate", "serializer", "object"),
        *("integer", "nan", "infinity", "constant", "levels", "many levels"),
    ],
)
async def test_result_that_cannot_be_kept_fails_the_step_for_good(
    books: Books, runner: Runner, steps: Steps, output: Any, model: type[BaseModel], says: str
) -> None:
    async def act(ctx: StepContext, input: Given) -> Any:
        return output

    steps.add(act, output=model, retry=AT_ONCE)
    request = await books.request()
    outcome = await runner.run_step(request)
    assert error_of(outcome)[0] == "WrongResult"
    assert says in error_of(outcome)[1]
    assert (await books.row(request))["status"] == "failed"
    assert await books.attempts(request) == [(1, "WrongResult")]


async def test_results_at_the_limits_are_kept(books: Books, runner: Runner, steps: Steps) -> None:
    kept = {"digits": 10**4000 - 1, "levels": nested(97), "text": "9" * 5000, "no number": "NaN"}

    async def act(ctx: StepContext, input: Given) -> Any:
        return Loose(anything=kept)

    steps.add(act, output=Loose)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert (await books.row(request))["output"] == {"anything": kept}


async def test_result_with_a_text_that_spells_a_nul_is_kept(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        return Got(text="\\u0000 and \\\\u0000")

    steps.add(act)
    request = await books.request()
    assert isinstance(await runner.run_step(request), Completed)
    assert (await books.row(request))["output"] == {"text": "\\u0000 and \\\\u0000"}


async def test_result_beyond_the_limit_names_step_and_size(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.output.LARGEST_OUTPUT", 100)

    async def act(ctx: StepContext, input: Given) -> Got:
        return Got(text="x" * 200)

    steps.add(act)
    request = await books.request()
    for _ in range(2):
        outcome = await runner.run_step(request)
        assert error_of(outcome) == (
            "OutputTooLarge", "the result of work has 211 bytes, the limit is 100",
        )  # fmt: skip
