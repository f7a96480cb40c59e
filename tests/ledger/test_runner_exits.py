"""What a step raises stays inside its attempt: neither the service nor another step ends by it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

from pgflows.context import StepContext
from pgflows.runner.outcome import Completed, Outcome
from pgflows.runner.runner import Runner
from tests.ledger.conftest import Books
from tests.ledger.steps import AT_ONCE, NEVER, Given, Got, Held, Steps, error_of, raising


class Rude(BaseException):
    pass


class Silent(Exception):
    def __str__(self) -> str:
        sys.exit("no text")


class Exiting(BaseModel):
    value: int = 1

    @field_serializer("value")
    def _exit(self, value: int) -> int:
        sys.exit("no JSON")


EXITS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit("end"), Rude("rude")]


def add_sync(steps: Steps, error: BaseException) -> None:
    def work(ctx: StepContext, input: Given) -> Got:
        steps.seen.append(ctx)
        raise error

    steps.app.step(name="work", retry=AT_ONCE)(work)


def add_async(steps: Steps, error: BaseException) -> None:
    steps.add(raising(*([error] * 9)), retry=AT_ONCE)


def add_with_a_task(steps: Steps, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def act(ctx: StepContext, input: Given) -> Got:
        await asyncio.create_task(fail())
        return Got()

    steps.add(act, retry=AT_ONCE)


def add_with_a_group(steps: Steps, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def act(ctx: StepContext, input: Given) -> Got:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
        return Got()

    steps.add(act, retry=AT_ONCE)


@pytest.mark.parametrize("error", EXITS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("add", [add_async, add_sync, add_with_a_task])
async def test_step_that_raises_an_exit_is_tried_as_often_as_its_policy_says(
    books: Books,
    runner: Runner,
    steps: Steps,
    caplog: pytest.LogCaptureFixture,
    add: Any,
    error: BaseException,
) -> None:
    add(steps, error)
    request = await books.request()
    name = type(error).__name__
    assert error_of(await runner.run_step(request)) == (name, str(error))
    assert await books.attempts(request) == [(1, name), (2, name), (3, name)]
    told = await books.owner.fetchval("select min(traceback) from pgflows.attempts")
    assert f"{name}" in told
    assert f"work#1 of {steps.seen[0].instance_id} failed for good" in caplog.text


async def test_step_whose_task_group_exits_is_an_attempt_of_that_type(
    books: Books, runner: Runner, steps: Steps
) -> None:
    add_with_a_group(steps, SystemExit(3))
    assert error_of(await runner.run_step(await books.request())) == ("SystemExit", "3")


async def test_step_that_exits_leaves_its_neighbour_alone(
    books: Books, runner: Runner, steps: Steps
) -> None:
    held = Held()

    async def act(ctx: StepContext, input: Given) -> Got:
        if ctx.step_key == "work#1":
            return await held(ctx, input)
        asyncio.get_running_loop().create_task(exit_later())
        raise SystemExit

    async def exit_later() -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    steps.add(act, retry=NEVER, timeout=30)
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    neighbour: asyncio.Task[Outcome] = asyncio.create_task(runner.run_step(first))
    await held.begun.wait()
    assert error_of(await runner.run_step(second))[0] == "SystemExit"
    held.end.set()
    assert isinstance(await neighbour, Completed)


async def test_step_that_cancels_itself_is_an_attempt(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        task = asyncio.current_task()
        assert task
        task.cancel()
        if ctx.attempt == 1:
            await asyncio.sleep(0)
        return Got()

    steps.add(act, retry=AT_ONCE)
    request = await books.request()
    assert error_of(await runner.run_step(request))[0] == "CancelledError"
    assert await books.attempts(request) == [(n, "CancelledError") for n in (1, 2, 3)]


async def test_error_that_exits_while_it_is_told_is_recorded(
    books: Books, runner: Runner, steps: Steps
) -> None:
    steps.add(raising(Silent()), retry=NEVER)
    assert error_of(await runner.run_step(await books.request())) == (
        "Silent", "(the error has no text)",
    )  # fmt: skip


async def test_result_that_exits_while_it_is_written_is_recorded(
    books: Books, runner: Runner, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Any:
        return Exiting()

    steps.add(act, output=Exiting)
    kind, message = error_of(await runner.run_step(await books.request()))
    assert (kind, "no JSON" in message) == ("WrongResult", True)
