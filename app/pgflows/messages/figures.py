"""Figures and health of a deployment."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from pgflows.messages.values import Status


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
    left_behind_limit: int = Field(
        description="When left_behind reaches this number, no more steps are begun"
    )


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
