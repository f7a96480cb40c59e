"""An order: charge the card, reserve the goods, ship them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from pgflows import NonRetryableError, RetryConfig, StepContext, WorkflowContext
from steps import app


class OrderInput(BaseModel):
    order_id: str = Field(min_length=1, examples=["ORD-1"])
    amount: float = Field(gt=0, examples=[99.0])


class PaymentResult(BaseModel):
    charged: bool
    confirmation: str


class ReserveInput(BaseModel):
    order_id: str
    confirmation: str


class Reservation(BaseModel):
    reservation: str
    warehouse: str


class ShipInput(BaseModel):
    order_id: str
    reservation: str
    warehouse: str


class Shipment(BaseModel):
    tracking: str


class OrderResult(BaseModel):
    charged: bool
    confirmation: str
    tracking: str


@app.step(retry=RetryConfig(max_retries=3, initial_delay_seconds=1.0))
async def charge_payment(ctx: StepContext, input: OrderInput) -> PaymentResult:
    """Charge the card. A payment service would get ctx.idempotency_key, so that it charges once."""
    if input.amount > 1_000_000:
        raise NonRetryableError(f"the card of {input.order_id} was declined")
    return PaymentResult(charged=True, confirmation=f"CHG-{input.order_id}")


@app.step
async def reserve_stock(ctx: StepContext, input: ReserveInput) -> Reservation:
    """Put the goods aside."""
    return Reservation(reservation=f"RES-{input.order_id}", warehouse="east")


@app.step(timeout=20)
async def ship_order(ctx: StepContext, input: ShipInput) -> Shipment:
    """Hand the parcel over to the carrier."""
    return Shipment(tracking=f"TRK-{input.warehouse}-{input.order_id}")


@app.workflow()
async def process_order(ctx: WorkflowContext, input: OrderInput) -> OrderResult:
    """Charge, reserve and ship one order."""
    payment = await ctx.step(charge_payment, input)
    reservation = await ctx.step(
        reserve_stock,
        ReserveInput(order_id=input.order_id, confirmation=payment.confirmation),
    )
    shipment = await ctx.step(
        ship_order,
        ShipInput(
            order_id=input.order_id,
            reservation=reservation.reservation,
            warehouse=reservation.warehouse,
        ),
    )
    return OrderResult(
        charged=payment.charged,
        confirmation=payment.confirmation,
        tracking=shipment.tracking,
    )
