"""The workflows that these tests serve."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from pgflows.app import WorkflowApp
from pgflows.context import StepContext, WorkflowContext
from pgflows.definitions import RetryConfig
from pgflows.errors import NonRetryableError


class Order(BaseModel):
    """An order."""

    order_id: str = Field(examples=["ORD-1"])
    amount: float = Field(examples=[99.0])


class Charged(BaseModel):
    """A charge."""

    order_id: str
    confirmation: str


class Shipped(BaseModel):
    """A parcel."""

    parcel: str


def make_app() -> WorkflowApp:
    """A fresh app: two steps in a row, a step that fails for good, one that takes long."""
    app = WorkflowApp()

    @app.step(retry=RetryConfig(max_retries=1, initial_delay_seconds=0))
    async def charge(ctx: StepContext, input: Order) -> Charged:
        """Charge the customer."""
        return Charged(order_id=input.order_id, confirmation=f"CHG-{input.order_id}")

    @app.step
    async def ship(ctx: StepContext, input: Charged) -> Shipped:
        """Send the parcel."""
        return Shipped(parcel=f"PARCEL-{input.confirmation}")

    @app.step
    async def refuse(ctx: StepContext, input: Order) -> Charged:
        """Fail for good."""
        raise NonRetryableError(f"no credit for {input.order_id}")

    @app.step
    async def dawdle(ctx: StepContext, input: Order) -> Charged:
        """Take as long as the order costs."""
        await asyncio.sleep(input.amount)
        return Charged(order_id=input.order_id, confirmation="late")

    @app.workflow
    async def process_order(ctx: WorkflowContext, input: Order) -> Shipped:
        charged = await ctx.step(charge, input)
        return await ctx.step(ship, charged)

    @app.workflow
    async def refused_order(ctx: WorkflowContext, input: Order) -> Charged:
        return await ctx.step(refuse, input)

    @app.workflow
    async def slow_order(ctx: WorkflowContext, input: Order) -> Charged:
        return await ctx.step(dawdle, input)

    return app
