"""How an outcome of the one step path travels as an HTTP answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgflows.errors import SignatureRefused
from pgflows.http.steps import response_to
from pgflows.runner.failure import Failure
from pgflows.runner.outcome import (
    Cancelled,
    Completed,
    Failed,
    Later,
    Outcome,
    Running,
    Unknown,
)


def failed(kind: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "m"}, "retryable": False, "retry_after": None}


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Completed(b'{"a":1}'), 200, {"a": 1}),
        (Failed(Failure("ValueError", "m", traceback="Traceback")), 424, failed("ValueError")),
        (Failed(Failure("InvalidInput", "m")), 422, failed("InvalidInput")),
        (Failed(Failure("OutputTooLarge", "m")), 413, failed("OutputTooLarge")),
        (Running(), 409, {"detail": "the step is still running"}),
        (Later(1.5, "busy"), 429, {"detail": "busy"}),
        (Cancelled(), 410, {"detail": "the instance was cancelled, or is gone"}),
    ],
)
def test_each_outcome_has_its_status(outcome: Outcome, status: int, body: Any) -> None:
    response = response_to(outcome)
    assert (response.status_code, json.loads(bytes(response.body))) == (status, body)
    assert response.headers["content-type"] == "application/json"


def test_a_later_outcome_says_when_to_ask_again() -> None:
    assert response_to(Later(1.5, "busy")).headers["retry-after"] == "1.500"
    assert response_to(Later(-1, "due")).headers["retry-after"] == "0.000"


def test_an_unknown_request_is_refused_like_a_bad_signature() -> None:
    with pytest.raises(SignatureRefused, match="no such call is open"):
        response_to(Unknown())
