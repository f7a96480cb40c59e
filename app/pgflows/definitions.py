"""What a user declares: steps, workflows and retry policies.

The registry makes these objects; the compiler reads workflows, the runner calls steps.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pgflows.annotations import Signature
from pgflows.context import In, Out, StepContext, WorkflowContext


class RetryConfig(BaseModel):
    """How often a failed step is tried again, and how long it waits in between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(3, ge=0, le=1000, description="Attempts after the first one")
    initial_delay_seconds: float = Field(1.0, ge=0, allow_inf_nan=False)
    max_delay_seconds: float = Field(60.0, ge=0, allow_inf_nan=False)
    backoff: Literal["exponential", "linear"] = "exponential"
    jitter: bool = Field(True, description="Wait a random part, at least half, of the delay")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_delay_seconds < self.initial_delay_seconds:
            raise ValueError("max_delay_seconds must not be below initial_delay_seconds")
        return self

    def delay(self, failures: int) -> float:
        """Seconds to wait after the given number of failed attempts (1, 2, …)."""
        if self.backoff == "linear":
            seconds = self.initial_delay_seconds * failures
        else:
            seconds = self.initial_delay_seconds * 2.0 ** min(failures - 1, 64)
        seconds = min(seconds, self.max_delay_seconds)
        if self.jitter:
            seconds *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return seconds


def call_timeout(step_timeout: float) -> int:
    """Seconds that an engine waits for a call of a step whose attempts may take `step_timeout`.

    The margin leaves room for short retries inside the call and for the answer itself.
    """
    return math.ceil(step_timeout + 30)


StepFunction = Callable[[StepContext, In], Awaitable[Out]] | Callable[[StepContext, In], Out]


@dataclass(frozen=True, kw_only=True, eq=False)
class Definition(Generic[In, Out]):
    """What a step and a workflow have in common: a name, and a function with two models."""

    name: str
    signature: Signature

    @cached_property
    def input_model(self) -> type[In]:
        return cast("type[In]", self.signature.input_model)

    @cached_property
    def output_model(self) -> type[Out]:
        return cast("type[Out]", self.signature.output_model)

    @property
    def file(self) -> str:
        return self.signature.file

    @property
    def line(self) -> int:
        return self.signature.line

    @property
    def description(self) -> str | None:
        return self.signature.description


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(Definition[In, Out]):
    """A registered step function. It stays callable: `await charge(ctx, input)` in a unit test."""

    fn: StepFunction[In, Out]
    retry: RetryConfig | None = None
    timeout: float | None = None
    is_async: bool = True

    async def __call__(self, ctx: StepContext, input: In) -> Out:
        """Run the function; one that is not async runs in a thread."""
        if self.is_async:
            return await cast("Callable[[StepContext, In], Awaitable[Out]]", self.fn)(ctx, input)
        return await asyncio.to_thread(
            cast("Callable[[StepContext, In], Out]", self.fn), ctx, input
        )


WorkflowFunction = Callable[[WorkflowContext, In], Awaitable[Out]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Workflow(Definition[In, Out]):
    """A registered workflow function; its source is compiled when the app is checked."""

    version: str
    fn: WorkflowFunction[In, Out]
    step_defaults: RetryConfig | None = None

    async def __call__(self, ctx: WorkflowContext, input: In) -> Out:
        """Run the function itself, with a context of the caller's (a test's stand-in, say)."""
        return await self.fn(ctx, input)

    def retry_of(self, step: Step[Any, Any]) -> RetryConfig:
        """The policy of a step in this workflow: its own, else the workflow's, else the default."""
        return step.retry or self.step_defaults or RetryConfig()
