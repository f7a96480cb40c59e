"""The JSON of the HTTP API, both ways; the server and the client share these models."""

from pgflows.messages.figures import (
    EngineStats,
    InstanceCount,
    Live,
    PoolStats,
    QueueStats,
    Ready,
    Stats,
    StepStats,
)
from pgflows.messages.history import Attempt, GraphRun, History, StepRun, Waiting
from pgflows.messages.instances import Instance, InstancePage, InstanceSummary, Started
from pgflows.messages.problem import PROBLEM, Problem, problem_type
from pgflows.messages.requests import CancelRequest, StartRequest
from pgflows.messages.values import Label, Status, StepStatus, Time
from pgflows.messages.workflows import WorkflowInfo, WorkflowList

__all__ = [
    "PROBLEM",
    "Attempt",
    "CancelRequest",
    "EngineStats",
    "GraphRun",
    "History",
    "Instance",
    "InstanceCount",
    "InstancePage",
    "InstanceSummary",
    "Label",
    "Live",
    "PoolStats",
    "Problem",
    "QueueStats",
    "Ready",
    "StartRequest",
    "Started",
    "Stats",
    "Status",
    "StepRun",
    "StepStats",
    "StepStatus",
    "Time",
    "Waiting",
    "WorkflowInfo",
    "WorkflowList",
    "problem_type",
]
