"""What happened in an instance: its steps, their attempts, the starts and nodes of its graph."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pgflows.messages.instances import Instance
from pgflows.messages.values import A_TIME, StepStatus

_ATTEMPT: dict[str, Any] = {
    "attempt": 1,
    "started_at": A_TIME,
    "ended_at": A_TIME,
    "duration_ms": 12.5,
    "error_type": None,
    "message": None,
}
_STEP: dict[str, Any] = {
    "step_key": "charge_payment#1",
    "step": "charge_payment",
    "seq": 1,
    "status": "completed",
    "input": {"order_id": "ORD-1", "amount": 99.0},
    "output": {"charged": True},
    "error": None,
    "attempt_count": 1,
    "attempts": [_ATTEMPT],
    "requested_at": A_TIME,
    "retry_at": None,
    "waits_for": None,
    "waiting": None,
    "started_at": A_TIME,
    "ended_at": A_TIME,
    "duration_ms": 12.5,
}


class Attempt(BaseModel):
    """One try of a step, written when it ended. `error_type` null means that it succeeded."""

    attempt: int
    started_at: datetime
    ended_at: datetime
    duration_ms: float
    error_type: str | None
    message: str | None


class Waiting(BaseModel):
    """What came instead of an outcome when a step was called."""

    reason: str = Field(examples=["HTTP 404: this service has no step charge_payment"])
    since: datetime
    tries: int = Field(description="How many calls came to nothing")


class StepRun(BaseModel):
    """One step of an instance."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STEP]})

    step_key: str
    step: str
    seq: int = Field(description="The number of the node that asked for the step, from 1")
    status: StepStatus
    input: Any
    output: Any = None
    error: Any = None
    attempt_count: int
    attempts: list[Attempt]
    requested_at: datetime
    retry_at: datetime | None
    waits_for: str | None = Field(None, description="What a step that has not ended waits for")
    waiting: Waiting | None = Field(None, description="Why the engine calls it again and again")
    started_at: datetime | None
    ended_at: datetime | None
    duration_ms: float | None


class GraphRun(BaseModel):
    """One start of an instance's graph; there is more than one after a revival."""

    df_id: str
    started_at: datetime
    reason: str | None = Field(description="What became of the start before, if maintenance saw it")


class History(Instance):
    """An instance with all that happened in it."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    steps: list[StepRun]
    runs: list[GraphRun]
    nodes: list[dict[str, Any]] = Field(description="df.instance_nodes of the newest run")
    executions: list[dict[str, Any]] = Field(description="df.instance_executions of that run")
