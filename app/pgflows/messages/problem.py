"""An error as the service tells it."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

PROBLEM = "urn:pgflows:problem:"


def problem_type(error: type[Exception]) -> str:
    """The stable URI under which an error travels: InvalidInput is …:invalid-input."""
    return PROBLEM + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower()


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
