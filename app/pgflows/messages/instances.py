"""Instances: one, as a start answers with it, and pages of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from pgflows.messages.values import A_TIME, AN_ID, Status

_SUMMARY: dict[str, Any] = {
    "instance_id": AN_ID,
    "df_id": "1f0c9a7e",
    "workflow": "process_order",
    "version": "1",
    "status": "completed",
    "label": "web",
    "attributes": {},
    "error": None,
    "created_at": A_TIME,
    "ended_at": A_TIME,
}
_INSTANCE = _SUMMARY | {
    "input": {"order_id": "ORD-1", "amount": 99.0},
    "output": {"charged": True, "confirmation": "CHG-ORD-1"},
    "idempotency_key": "order-1",
    "started_by": "pgflows",
    "started_at": A_TIME,
}


class InstanceSummary(BaseModel):
    """An instance as a list shows it: without its input and output."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY]})

    instance_id: UUID
    df_id: str | None = Field(
        description="The orchestrator's id of the newest run of the graph", examples=["1f0c9a7e"]
    )
    workflow: str
    version: str
    status: Status
    label: str | None
    attributes: dict[str, Any]
    error: Any = None
    created_at: datetime
    ended_at: datetime | None


class Instance(InstanceSummary):
    """One run of a workflow."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INSTANCE]})

    input: Any
    output: Any = None
    idempotency_key: str | None
    started_by: str = Field(description="The database role that started it")
    started_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ("completed", "failed", "cancelled")


class Started(Instance):
    """The instance that a start answers with; with `wait`, as it is when the wait is over."""

    created: bool = Field(
        True, description="false: the idempotency key had started this instance before"
    )


class InstancePage(BaseModel):
    """A page of instances, newest first."""

    instances: list[InstanceSummary]
    next_cursor: UUID | None = Field(description="The `cursor` of the next page; null at the end")
