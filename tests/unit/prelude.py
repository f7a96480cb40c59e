# ruff: noqa: F401
"""What the workflows of the compiler's tests are made of."""

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)

from pgflows import RetryConfig, StepContext, WorkflowApp, WorkflowContext

app = WorkflowApp()
other_app = WorkflowApp()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1


class Address(BaseModel):
    city: str
    zip: str = "00000"


class Customer(BaseModel):
    name: str
    address: Address
    second: Address | None = None


class Order(BaseModel):
    order_id: str
    amount: float = 1.5
    customer: Customer | None = None
    home: Address = Address(city="Ulm")


class Paid(BaseModel):
    order_id: str
    count: int = 0
    ok: bool = True
    note: str | None = None
    address: Address = Address(city="Ulm")


class PaidMore(Paid):
    extra: str = "x"


@app.step
async def charge(ctx: StepContext, input: Order) -> Paid:
    return Paid(order_id=input.order_id)


@app.step
async def ship(ctx: StepContext, input: Paid) -> Customer:
    return Customer(name=input.order_id, address=input.address)


@app.step
async def finish(ctx: StepContext, input: Customer) -> PaidMore:
    return PaidMore(order_id=input.name)


@other_app.step(name="charge")
async def foreign(ctx: StepContext, input: Order) -> Paid:
    return Paid(order_id=input.order_id)


def plain_function(order: Order) -> Paid:
    return Paid(order_id=order.order_id)


RATE = 3
