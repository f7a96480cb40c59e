"""pgflows: durable workflows on the PostgreSQL you already run."""

from pgflows.client import Client
from pgflows.config import Settings
from pgflows.definitions import RetryConfig, StepContext, WorkflowContext
from pgflows.errors import CompileError, NonRetryableError, PgflowsError, RetryAfter
from pgflows.registry import WorkflowApp

__all__ = [
    "Client",
    "CompileError",
    "NonRetryableError",
    "PgflowsError",
    "RetryAfter",
    "RetryConfig",
    "Settings",
    "StepContext",
    "WorkflowApp",
    "WorkflowContext",
]
