"""Steps that do what a test says, and a runner for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from pgflows.app import WorkflowApp
from pgflows.config import Settings
from pgflows.context import StepContext
from pgflows.definitions import RetryConfig
from pgflows.ledger.ledger import Ledger
from pgflows.runner.outcome import Failed, Outcome
from pgflows.runner.runner import Runner

BASE_URL = "http://127.0.0.1:8000"
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


class Constants(BaseModel):
    """Writes NaN and Infinity as Python's json does, which is not JSON."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    number: float


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


@asynccontextmanager
async def running(
    database: Any, steps: Steps, **settings: Any
) -> AsyncIterator[tuple[Runner, Ledger]]:
    async with (
        Ledger.open(database.dsn, BASE_URL) as ledger,
        Runner(steps.app, ledger, Settings(**settings)) as runner,
    ):
        yield runner, ledger


def nested(levels: int) -> Any:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def error_of(outcome: Outcome) -> tuple[str, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.error.type, outcome.error.message


def raising(*errors: BaseException) -> Any:
    """A step that raises these in turn, then returns."""
    left = list(errors)

    async def act(ctx: StepContext, input: Given) -> Got:
        if left:
            raise left.pop(0)
        return Got(text="done")

    return act


class Held:
    """A step that has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.end = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: StepContext, input: Given) -> Got:
        self.begun.set()
        await self.end.wait()
        return Got(text="held")


async def good(ctx: StepContext, input: Given) -> Got:
    return Got(text=f"got {input.value}")
