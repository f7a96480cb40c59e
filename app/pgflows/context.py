"""What steps and workflows are given as their first argument."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel

from pgflows.errors import PgflowsError

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)
Given = TypeVar("Given", bound=BaseModel, contravariant=True)
Made = TypeVar("Made", bound=BaseModel, covariant=True)


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step may know about the run that it is part of.

    `idempotency_key` is the same for every attempt of this step in this run, after a crash too:
    hand it to services that take such a key. `deadline` is when this attempt is given up.
    `df_id` is the orchestrator's id of the run; None if no orchestrator called the step.
    """

    instance_id: UUID
    df_id: str | None
    step_key: str
    attempt: int
    idempotency_key: str
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    deadline: datetime


class DurableStep(Protocol[Given, Made]):
    """What `ctx.step` runs: a function under `@app.step`."""

    @property
    def name(self) -> str: ...

    def __call__(self, ctx: StepContext, input: Given, /) -> Awaitable[Made]: ...


class WorkflowContext:
    """The first argument of a workflow: `await ctx.step(charge, order)` runs a step durably."""

    async def step(self, step: DurableStep[In, Out], input: In, /) -> Out:
        """Run `step` with `input`, once, and go on with its result."""
        raise PgflowsError(
            f"the workflow around ctx.step({step.name}, …) was called like a plain function; "
            "PostgreSQL runs it: start it over HTTP, with pgflows.Client or by pgflows.start()"
        )
