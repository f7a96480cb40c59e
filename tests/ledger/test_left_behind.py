"""Step functions that go on past their time limit: counted, replaced, and nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pgflows.context import StepContext
from pgflows.runner.outcome import Completed, Later
from pgflows.runner.runner import Runner
from tests.conftest import until
from tests.ledger.conftest import Books
from tests.ledger.steps import AT_ONCE, NEVER, Given, Got, Steps, error_of, running


class Blocked:
    """A step that is not async and blocks in its first calls until the test lets it go."""

    def __init__(self, calls: int = 1) -> None:
        self.free = threading.Event()
        self.calls = calls

    def add(self, steps: Steps, **options: Any) -> None:
        def work(ctx: StepContext, input: Given) -> Got:
            steps.seen.append(ctx)
            if len(steps.seen) <= self.calls:
                self.free.wait(60)
            return Got(text="done")

        steps.app.step(name="work", timeout=0.2, **options)(work)


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    found = Blocked()
    yield found
    found.free.set()


async def test_thread_that_blocks_is_replaced_and_counted(
    books: Books, database: Any, steps: Steps, blocked: Blocked, caplog: pytest.LogCaptureFixture
) -> None:
    blocked.add(steps, retry=AT_ONCE)
    requests = await books.ask(await books.start(), *(f"work#{n}" for n in range(4)))
    async with running(database, steps, step_concurrency=1) as (runner, _):
        assert isinstance(await runner.run_step(requests[0]), Completed)
        assert await books.attempts(requests[0]) == [(1, "StepTimeout"), (2, None)]
        assert runner.stats().left_behind == 1
        assert "goes on past its time limit of 0.2 s" in caplog.text
        for request in requests[1:]:
            assert isinstance(await runner.run_step(request), Completed)
            assert await books.attempts(request) == [(1, None)]
        blocked.free.set()

        async def ended() -> bool:
            return runner.stats().left_behind == 0

        await until(ended)


async def test_runner_with_too_many_functions_left_behind_asks_to_come_later(
    books: Books,
    database: Any,
    steps: Steps,
    blocked: Blocked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgflows.runner.runner.MOST_LEFT_BEHIND", 2)
    blocked.calls = 2
    blocked.add(steps, retry=AT_ONCE)
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    async with running(database, steps) as (runner, _):
        assert isinstance(await runner.run_step(first), Later)
        assert await books.attempts(first) == [(1, "StepTimeout"), (2, "StepTimeout")]
        assert isinstance(await runner.run_step(second), Later)
        assert (await books.row(second))["status"] == "requested"
        assert await books.attempts(second) == []
        blocked.free.set()

        async def answered() -> bool:
            return isinstance(await runner.run_step(second), Completed)

        await until(answered)
        assert isinstance(await runner.run_step(first), Completed)


async def test_async_step_that_ignores_its_cancellation_is_left_behind(
    books: Books, runner: Runner, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflows.runner.functions.CANCEL_SECONDS", 0.05)
    end = asyncio.Event()

    async def act(ctx: StepContext, input: Given) -> Got:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return Got()

    steps.add(act, timeout=0.1, retry=NEVER)
    assert error_of(await runner.run_step(await books.request()))[0] == "StepTimeout"
    assert runner.stats().left_behind == 1
    end.set()


async def test_async_step_may_clean_up_after_its_time_limit(
    books: Books, runner: Runner, steps: Steps
) -> None:
    cleaned: list[str] = []

    async def act(ctx: StepContext, input: Given) -> Got:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(ctx.step_key)
        return Got()

    steps.add(act, timeout=0.1, retry=NEVER)
    assert error_of(await runner.run_step(await books.request()))[0] == "StepTimeout"
    assert cleaned == ["work#1"]
    assert runner.stats().left_behind == 0


async def test_runner_drains_in_time_although_threads_block(
    books: Books, database: Any, steps: Steps, blocked: Blocked
) -> None:
    def work(ctx: StepContext, input: Given) -> Got:
        steps.seen.append(ctx)
        blocked.free.wait(60)
        return Got()

    steps.app.step(name="work", timeout=60)(work)
    request = await books.request()
    async with running(database, steps) as (runner, _):
        asked = asyncio.create_task(runner.run_step(request))
        await until(lambda: asyncio.sleep(0, bool(steps.seen)))
        began = time.monotonic()
        await runner.drain(0.1)
        assert time.monotonic() - began < 2
        assert isinstance(await asked, Later)
    assert await books.attempts(request) == [(1, "Interrupted")]
    assert (await books.row(request))["status"] == "requested"


async def test_runner_interrupts_a_step_that_waits_for_its_next_attempt(
    books: Books, database: Any, steps: Steps
) -> None:
    async def act(ctx: StepContext, input: Given) -> Got:
        raise ValueError("again")

    retry = AT_ONCE.model_copy(update={"initial_delay_seconds": 5, "max_delay_seconds": 5})
    steps.add(act, retry=retry, timeout=30)
    request = await books.request()
    async with running(database, steps) as (runner, _):
        asked = asyncio.create_task(runner.run_step(request))

        async def failed() -> bool:
            return bool(await books.attempts(request))

        await until(failed)
        await runner.drain(0)
        assert isinstance(await asked, Later)
    assert await books.attempts(request) == [(1, "ValueError"), (2, "Interrupted")]
    assert (await books.row(request))["deaths"] == 0
