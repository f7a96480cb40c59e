"""pgflows: durable workflows on the PostgreSQL you already run."""

from pgflows.client import Client
from pgflows.definitions import RetryConfig, StepContext, WorkflowContext
from pgflows.errors import CompileError, NonRetryableError, PgflowsError, RetryAfter
from pgflows.registry import WorkflowApp
from pgflows.settings import Settings

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
