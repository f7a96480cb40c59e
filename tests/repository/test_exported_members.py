"""The public names of the package; everything else may change."""

from __future__ import annotations

import pgflows

PUBLIC = {
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
}


def test_the_public_names_are_these_and_sorted() -> None:
    assert set(pgflows.__all__) == PUBLIC
    assert list(pgflows.__all__) == sorted(pgflows.__all__)
    assert all(hasattr(pgflows, name) for name in pgflows.__all__)
