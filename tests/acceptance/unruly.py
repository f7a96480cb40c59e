"""Steps that do to their process what they should not."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from pydantic import BaseModel

from pgflows import RetryConfig, StepContext, WorkflowApp, WorkflowContext

app = WorkflowApp()
TWICE = RetryConfig(max_retries=1, initial_delay_seconds=0.01, jitter=False)


class Work(BaseModel):
    seconds: float = 0


@app.step(retry=TWICE)
async def kill(ctx: StepContext, input: Work) -> Work:
    await asyncio.sleep(input.seconds)
    os._exit(9)


@app.step(retry=TWICE)
async def leave(ctx: StepContext, input: Work) -> Work:
    sys.exit("enough")


@app.step(retry=TWICE)
def interrupt(ctx: StepContext, input: Work) -> Work:
    raise KeyboardInterrupt


@app.step(retry=TWICE)
async def wait(ctx: StepContext, input: Work) -> Work:
    await asyncio.sleep(input.seconds)
    return input


@app.step(timeout=0.2, retry=RetryConfig(max_retries=0))
def block(ctx: StepContext, input: Work) -> Work:
    time.sleep(input.seconds)
    return input


@app.step(timeout=0.2, retry=RetryConfig(max_retries=0))
async def block_elsewhere(ctx: StepContext, input: Work) -> Work:
    await asyncio.to_thread(time.sleep, input.seconds)
    return input


@app.step(timeout=0.2, retry=RetryConfig(max_retries=0))
async def ignore(ctx: StepContext, input: Work) -> Work:
    while True:
        try:
            await asyncio.sleep(input.seconds)
        except asyncio.CancelledError:
            continue


@app.workflow()
async def killing(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(kill, input)


@app.workflow()
async def leaving(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(leave, input)


@app.workflow()
async def interrupting(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(interrupt, input)


@app.workflow()
async def waiting(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(wait, input)


@app.workflow()
async def blocking(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(block, input)


@app.workflow()
async def blocking_elsewhere(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(block_elsewhere, input)


@app.workflow()
async def ignoring(ctx: WorkflowContext, input: Work) -> Work:
    return await ctx.step(ignore, input)
