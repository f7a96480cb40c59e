"""The deployment's own steps, run as plain functions, and the data that they are run on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pgflows import NonRetryableError, StepContext, WorkflowContext
from pgflows.flow import compile_app
from pgflows.loading import load_app
from steps import app
from steps.flights import DelayedFlight, compensate_delay, delayed_flights
from steps.orders import OrderInput, process_order

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "flights.csv"


class Direct(WorkflowContext):
    """Runs each step at once, and remembers which."""

    def __init__(self) -> None:
        self.called: list[str] = []

    async def step(self, step: Any, input: Any, /) -> Any:
        self.called.append(step.name)
        context = StepContext(
            instance_id=UUID(int=1),
            df_id="0000000a",
            step_key=f"{step.name}#1",
            attempt=1,
            idempotency_key="key",
            logger=logging.getLogger("test"),
            deadline=datetime.now(UTC),
        )
        return await step(context, input)


def test_the_deployment_compiles() -> None:
    assert load_app("steps:app") is app
    assert set(compile_app(app.registry)) == {"process_order", "compensate_delay"}


async def test_an_order_is_charged_reserved_and_shipped() -> None:
    ctx = Direct()
    result = await process_order(ctx, OrderInput(order_id="ORD-1", amount=99.0))
    assert ctx.called == ["charge_payment", "reserve_stock", "ship_order"]
    assert result.model_dump() == {
        "charged": True,
        "confirmation": "CHG-ORD-1",
        "tracking": "TRK-east-ORD-1",
    }


async def test_a_delayed_flight_is_compensated() -> None:
    ctx = Direct()
    flights = list(delayed_flights(FLIGHTS))
    assert len(flights) == 631
    result = await compensate_delay(ctx, flights[0])
    assert ctx.called == ["assess_delay", "price_compensation", "notify_passengers", "settle"]
    assert result.reference == "PAY-20130808-DL1247-LGA"
    assert result.cents == 30_000


async def test_a_flight_in_time_is_no_claim() -> None:
    flight = DelayedFlight.model_validate(
        {
            "flight_date": "2013-08-08",
            "carrier": "UA",
            "flight": 1,
            "origin": "EWR",
            "dest": "IAH",
            "arr_delay": 5,
            "distance": 1400,
        }
    )
    with pytest.raises(NonRetryableError, match="no claim"):
        await compensate_delay(Direct(), flight)


def test_every_flight_of_the_file_makes_another_claim() -> None:
    flights = list(delayed_flights(FLIGHTS))
    assert len({(f.flight_date, f.carrier, f.flight, f.origin) for f in flights}) == len(flights)
