"""Workflows whose SQL is kept beside them, one file each."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field

from pgflows import RetryConfig, StepContext, WorkflowApp, WorkflowContext

app = WorkflowApp()


class Grade(Enum):
    FINE = "fine"
    COARSE = "coarse"


class Address(BaseModel):
    city: str = Field(examples=["Zürich"])
    zip: str = "8000"


class Request(BaseModel):
    name: str = Field(alias="fullName", examples=["O'Hara"])
    amount: float = Field(1.5, gt=0)
    day: date = date(2024, 1, 31)
    address: Address
    tags: list[str] = Field(default_factory=list, examples=[["a\\b", "{sys_label}"]])


class Everything(BaseModel):
    text: str = ""
    number: float = 0
    count: int = 0
    flag: bool = False
    nothing: str | None = None
    day: date = date(2024, 1, 31)
    grade: Grade = Grade.FINE
    word: Literal["a", "b"] = "a"
    words: list[str] = []
    address: Address = Address(city="Ulm")
    addresses: list[Address] = []
    free: Any = None


class Receipt(BaseModel):
    number: str
    address: Address


@app.step
async def charge(ctx: StepContext, input: Request) -> Receipt:
    return Receipt(number=input.name, address=input.address)


@app.step(retry=RetryConfig(max_retries=0), timeout=5)
async def pack(ctx: StepContext, input: Everything) -> Everything:
    return input


@app.workflow
async def one_step(ctx: WorkflowContext, input: Request) -> Receipt:
    return await ctx.step(charge, input)


@app.workflow
async def no_step(ctx: WorkflowContext, input: Request) -> Address:
    """The input's address, whose zip the caller may have left out."""
    return input.address


@app.workflow(version="2.0")
async def paths(ctx: WorkflowContext, input: Request) -> Receipt:
    """Fields of the input, with its defaults, and of results; aliases; a name bound twice.

    A second paragraph: it's */ not -- the end; \\! and $e.seq {sys_label} stay text.
    """
    receipt = await ctx.step(charge, input)
    packed = await ctx.step(
        pack,
        Everything(
            text=input.name,
            number=input.amount,
            day=input.day,
            words=input.tags,
            address=receipt.address,
            addresses=[input.address, Address(city="Bern")],
        ),
    )
    packed = await ctx.step(pack, packed)
    return Receipt(number=packed.text, address=packed.address)


@app.workflow(step_defaults=RetryConfig(max_retries=1, backoff="linear"))
async def literals(ctx: WorkflowContext, input: Request) -> Everything:
    """Every kind of literal."""
    await ctx.step(charge, input)
    await ctx.step(
        pack,
        Everything(
            text="it's a \\ and a {sys_label} and $r1 and\ttab\nand \x01 and 東京 𝄞 \u202e",
            number=-0.1,
            count=123456789012345678901234567890,
            flag=True,
            nothing=None,
            day="2024-02-29",
            grade=Grade.COARSE,
            word="b",
            words=["{", "$", "'"],
            free={"k{": [1, 1.5, None, True, "$e.seq"]},
        ),
    )
    return Everything(text=input.name, grade=Grade.COARSE, free=[{"a": "$"}])


@app.workflow
async def many_steps(ctx: WorkflowContext, input: Everything) -> Everything:
    """More steps than a list of SEQs would be deep."""
    a = await ctx.step(pack, input)
    b = await ctx.step(pack, a)
    c = await ctx.step(pack, b)
    d = await ctx.step(pack, c)
    e = await ctx.step(pack, d)
    f = await ctx.step(pack, e)
    return await ctx.step(pack, f)
