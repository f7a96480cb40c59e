"""Steps whose effects can be counted: each attempt leaves a row in public.effects."""

from __future__ import annotations

import asyncio
import os

import asyncpg
from pydantic import BaseModel

from pgflows import RetryConfig, StepContext, WorkflowApp, WorkflowContext

app = WorkflowApp()
AGAIN_AT_ONCE = RetryConfig(max_retries=3, initial_delay_seconds=0.01, jitter=False)


class Work(BaseModel):
    name: str
    seconds: float = 0


async def note(ctx: StepContext) -> None:
    conn = await asyncpg.connect(os.environ["EFFECTS_DSN"])
    try:
        await conn.execute(
            "insert into public.effects values ($1, $2, $3)",
            str(ctx.instance_id),
            ctx.step_key,
            ctx.attempt,
        )
    finally:
        await conn.close()


@app.step(retry=AGAIN_AT_ONCE)
async def first(ctx: StepContext, input: Work) -> Work:
    await note(ctx)
    return input


@app.step(retry=AGAIN_AT_ONCE)
async def second(ctx: StepContext, input: Work) -> Work:
    await note(ctx)
    await asyncio.sleep(input.seconds)
    return input


@app.step(retry=AGAIN_AT_ONCE)
async def third(ctx: StepContext, input: Work) -> Work:
    await note(ctx)
    return Work(name=f"{input.name}!")


@app.workflow()
async def three(ctx: WorkflowContext, input: Work) -> Work:
    a = await ctx.step(first, input)
    b = await ctx.step(second, a)
    return await ctx.step(third, b)


@app.step(retry=RetryConfig(max_retries=1, initial_delay_seconds=0.01))
async def broken(ctx: StepContext, input: Work) -> Work:
    await note(ctx)
    raise LookupError(f"no {input.name}")


@app.workflow()
async def failing(ctx: WorkflowContext, input: Work) -> Work:
    a = await ctx.step(first, input)
    return await ctx.step(broken, a)


@app.step(retry=RetryConfig(max_retries=1, initial_delay_seconds=30, jitter=False), timeout=1)
async def later(ctx: StepContext, input: Work) -> Work:
    if ctx.attempt == 1:
        raise LookupError("not yet")
    return input


@app.workflow()
async def patient(ctx: WorkflowContext, input: Work) -> Work:
    """Its step fails once; the second attempt is due when the time of the call is over."""
    return await ctx.step(later, input)
