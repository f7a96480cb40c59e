"""Compensation for delayed flights, on real data: `examples/flights/flights.csv`."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from pgflows import NonRetryableError, RetryConfig, StepContext, WorkflowContext
from steps import app

Band = Literal["short", "medium", "long"]

CENTS = {"short": 12_500, "medium": 20_000, "long": 30_000}
WORK_SECONDS = 0.005  # stands for the calls that real steps would make


class DelayedFlight(BaseModel):
    flight_date: date = Field(examples=["2013-08-08"])
    carrier: str = Field(min_length=2, max_length=2, examples=["UA"])
    flight: int = Field(gt=0, examples=[1545])
    origin: str = Field(min_length=3, max_length=3, examples=["EWR"])
    dest: str = Field(min_length=3, max_length=3, examples=["IAH"])
    arr_delay: int = Field(description="Minutes", examples=[95])
    distance: int = Field(gt=0, description="Miles", examples=[1400])


class Assessment(BaseModel):
    claim: str
    band: Band
    hours_late: int


class PriceInput(BaseModel):
    claim: str
    band: Band
    hours_late: int


class Price(BaseModel):
    cents: int


class NoticeInput(BaseModel):
    claim: str
    carrier: str
    flight: int
    flight_date: date
    cents: int


class Notice(BaseModel):
    text: str


class SettleInput(BaseModel):
    claim: str
    cents: int
    notice: str


class Settlement(BaseModel):
    claim: str
    cents: int
    reference: str


@app.step(retry=RetryConfig(max_retries=5, initial_delay_seconds=0.1))
async def assess_delay(ctx: StepContext, input: DelayedFlight) -> Assessment:
    """Is there a claim, and how far was the flight?"""
    await asyncio.sleep(WORK_SECONDS)
    if input.arr_delay < 60:
        raise NonRetryableError(f"{input.arr_delay} minutes are no claim; it takes 60")
    band: Band = "short" if input.distance < 500 else "medium" if input.distance < 1500 else "long"
    claim = f"{input.flight_date:%Y%m%d}-{input.carrier}{input.flight}-{input.origin}"
    return Assessment(claim=claim, band=band, hours_late=input.arr_delay // 60)


@app.step
async def price_compensation(ctx: StepContext, input: PriceInput) -> Price:
    """The house rule: a sum by distance, half more for each further hour, thrice at most."""
    await asyncio.sleep(WORK_SECONDS)
    base = CENTS[input.band]
    return Price(cents=min(base + base // 2 * (input.hours_late - 1), 3 * base))


@app.step
def notify_passengers(ctx: StepContext, input: NoticeInput) -> Notice:
    """What the passengers are told; the ledger keeps it. Not async, so it runs in a thread."""
    return Notice(
        text=f"Flight {input.carrier} {input.flight} of {input.flight_date:%d %B %Y} was late: "
        f"you get ${input.cents / 100:.2f} (claim {input.claim})."
    )


@app.step(timeout=30)
async def settle(ctx: StepContext, input: SettleInput) -> Settlement:
    """Pay. The reference is the same however often this is tried."""
    await asyncio.sleep(WORK_SECONDS)
    return Settlement(claim=input.claim, cents=input.cents, reference=f"PAY-{input.claim}")


@app.workflow(step_defaults=RetryConfig(max_retries=5, initial_delay_seconds=0.2))
async def compensate_delay(ctx: WorkflowContext, input: DelayedFlight) -> Settlement:
    """Assess one delayed flight, price the compensation, notify its passengers and settle."""
    assessment = await ctx.step(assess_delay, input)
    price = await ctx.step(
        price_compensation,
        PriceInput(claim=assessment.claim, band=assessment.band, hours_late=assessment.hours_late),
    )
    notice = await ctx.step(
        notify_passengers,
        NoticeInput(
            claim=assessment.claim,
            carrier=input.carrier,
            flight=input.flight,
            flight_date=input.flight_date,
            cents=price.cents,
        ),
    )
    return await ctx.step(
        settle,
        SettleInput(claim=assessment.claim, cents=price.cents, notice=notice.text),
    )


def delayed_flights(file: Path, *, minutes: int = 60) -> Iterator[DelayedFlight]:
    """The flights of a file like flights.csv that arrived at least so many minutes late."""
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            if row["arr_delay"] and int(row["arr_delay"]) >= minutes:
                yield DelayedFlight(
                    flight_date=date(int(row["year"]), int(row["month"]), int(row["day"])),
                    carrier=row["carrier"],
                    flight=int(row["flight"]),
                    origin=row["origin"],
                    dest=row["dest"],
                    arr_delay=int(row["arr_delay"]),
                    distance=int(row["distance"]),
                )
