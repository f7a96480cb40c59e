"""The JSON of the HTTP API, both ways; the server and the client share these models.

Nothing gets past them that PostgreSQL cannot store as jsonb: NUL characters, lone surrogates,
NaN and infinities are refused here, with the place where they stand, and so never become a
server error.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from pgflows.database.storable import check_object, check_text

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
StepStatus = Literal["requested", "running", "completed", "failed", "cancelled"]

PROBLEM = "urn:pgflows:problem:"

_YEARS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


def _storable_time(value: datetime) -> datetime:
    if not _YEARS[0] <= value <= _YEARS[1]:
        raise ValueError("a time between the years 1970 and 9000 is expected")
    return value


def problem_type(error: type[Exception]) -> str:
    """The stable URI under which an error travels: InvalidInput is …:invalid-input."""
    return PROBLEM + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower()


JsonObject = Annotated[dict[str, Any], AfterValidator(check_object)]
Text = Annotated[str, AfterValidator(check_text)]
# the length first: checked after a function, it would be called a number of items
Label = Annotated[str, Field(max_length=255), AfterValidator(check_text)]
Reason = Annotated[str, Field(max_length=1000), AfterValidator(check_text)]
Time = Annotated[AwareDatetime, AfterValidator(_storable_time)]

_AN_ID = "019aa7d2-6b1c-7c3e-9b0a-3f2f6f0d9a11"
_A_TIME = "2025-11-21T09:30:00.123456+00:00"


class StartRequest(BaseModel):
    """What a workflow is started with."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"input": {"order_id": "ORD-1", "amount": 99.0}, "label": "web"}]
        },
    )

    input: JsonObject = Field(description="Fits the workflow's input model")
    label: Label | None = Field(None, description="A name of your own to find instances by")
    attributes: JsonObject = Field(
        default_factory=dict, description="Anything else to keep with the instance"
    )


class CancelRequest(BaseModel):
    """Why an instance is cancelled."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "ordered twice"}]}
    )

    reason: Reason | None = None


class InstanceSummary(BaseModel):
    """An instance as a list shows it: without its input and output."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "instance_id": _AN_ID,
                    "df_id": "1f0c9a7e",
                    "workflow": "process_order",
                    "version": "1",
                    "status": "completed",
                    "label": "web",
                    "attributes": {},
                    "error": None,
                    "created_at": _A_TIME,
                    "ended_at": _A_TIME,
                }
            ]
        }
    )

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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "instance_id": _AN_ID,
                    "df_id": "1f0c9a7e",
                    "workflow": "process_order",
                    "version": "1",
                    "status": "completed",
                    "input": {"order_id": "ORD-1", "amount": 99.0},
                    "output": {"charged": True, "confirmation": "CHG-ORD-1"},
                    "error": None,
                    "label": "web",
                    "attributes": {},
                    "idempotency_key": "order-1",
                    "started_by": "pgflows",
                    "created_at": _A_TIME,
                    "started_at": _A_TIME,
                    "ended_at": _A_TIME,
                }
            ]
        }
    )

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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "step_key": "charge_payment#1",
                    "step": "charge_payment",
                    "seq": 1,
                    "status": "completed",
                    "input": {"order_id": "ORD-1", "amount": 99.0},
                    "output": {"charged": True},
                    "error": None,
                    "attempt_count": 1,
                    "attempts": [
                        {
                            "attempt": 1,
                            "started_at": _A_TIME,
                            "ended_at": _A_TIME,
                            "duration_ms": 12.5,
                            "error_type": None,
                            "message": None,
                        }
                    ],
                    "requested_at": _A_TIME,
                    "retry_at": None,
                    "waits_for": None,
                    "waiting": None,
                    "started_at": _A_TIME,
                    "ended_at": _A_TIME,
                    "duration_ms": 12.5,
                }
            ]
        }
    )

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


class WorkflowInfo(BaseModel):
    """A registered workflow."""

    name: str = Field(examples=["process_order"])
    version: str = Field(examples=["1"])
    checksum: str
    registered_at: datetime
    definition: dict[str, Any] = Field(
        description="The steps with their retry policy, and the graph as data"
    )
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class WorkflowList(BaseModel):
    """What can be started."""

    workflows: list[WorkflowInfo]


class InstanceCount(BaseModel):
    """How many instances of a workflow have a status."""

    workflow: str
    status: Status
    count: int


class EngineStats(BaseModel):
    """The engines of this database: this project's, or the worker of the extension."""

    kind: Literal["embedded", "extension"]
    live: int
    lag_seconds: float = Field(description="Age of the oldest instance that waits for one")
    due: int = Field(description="How many wait, up to 10 000")


class QueueStats(BaseModel):
    """One pgmq queue."""

    queue: str
    depth: int
    oldest_seconds: float | None


class PoolStats(BaseModel):
    """The service's connections to the database."""

    size: int
    idle: int


class StepStats(BaseModel):
    """The steps that run in one service process."""

    running: int
    slots: int = Field(description="How many may run at once")
    left_behind: int = Field(
        description="Step functions that go on past their time limit and cannot be stopped"
    )
    left_behind_limit: int = Field(description="From so many on, no more steps are begun")


class Stats(BaseModel):
    """The figures behind /metrics, with the instances that ended as well."""

    instances: list[InstanceCount]
    df: dict[str, Any] | None = Field(description="df.metrics()")
    engine: EngineStats
    queues: list[QueueStats]
    steps_waiting: int = Field(description="Steps that are called in vain, up to 10 000")
    pool: PoolStats | None = None
    steps_here: StepStats | None = Field(None, description="The steps that run in this process")
    engine_here: dict[str, Any] | None = Field(
        None, description="What the engine in this process says of itself"
    )


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether requests can be served and runs make progress."""

    status: Literal["ready", "not ready"]
    database: bool
    migrations: bool
    engine: bool
    detail: str | None = Field(None, description="What is missing")


class Problem(BaseModel):
    """An error as RFC 9457 tells it; `type` is stable, further fields say which value was wrong."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:pgflows:problem:invalid-input",
                    "title": "The input does not fit the workflow's input model.",
                    "status": 422,
                    "detail": "amount: a number is expected",
                    "instance": "/workflows/process_order/start",
                    "field": "amount",
                    "expected": "number",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
