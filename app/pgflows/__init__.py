"""pgflows: durable workflows on the PostgreSQL you already run."""

from pgflows.app import WorkflowApp
from pgflows.client import Client
from pgflows.config import Settings
from pgflows.context import StepContext, WorkflowContext
from pgflows.definitions import RetryConfig
from pgflows.errors import CompileError, NonRetryableError, PgflowsError, RetryAfter

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
