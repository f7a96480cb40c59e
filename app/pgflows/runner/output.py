"""What a step returned, as the JSON that the ledger keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from pgflows.database.storable import Unstorable, check_json
from pgflows.registry import Step
from pgflows.runner.failure import Failure

LARGEST_OUTPUT = 8 * 1024 * 1024  # bytes


def as_json(step: Step[Any, Any], output: Any) -> bytes | Failure:
    """The result as JSON, if it is what the step promised and PostgreSQL can hold it."""
    if not isinstance(output, BaseModel) or not isinstance(output, step.output_model):
        name = type(output).__name__
        return _wrong(f"the step returned {name}, not {step.output_model.__name__}")
    try:
        text = output.model_dump_json(by_alias=True)
        raw = check_json(text).encode()
    except Unstorable as e:
        return _wrong(f"the result holds {e.what}")
    except BaseException as e:  # a field that JSON has no form for, or a serializer of the user's
        why = Failure.of(e)
        text = f"the result cannot be written as JSON: {why.message}"
        return replace(why, type="WrongResult", message=text, retryable=False)
    if len(raw) > LARGEST_OUTPUT:
        text = f"the result of {step.name} has {len(raw)} bytes, the limit is {LARGEST_OUTPUT}"
        return Failure("OutputTooLarge", text)
    return raw


def _wrong(message: str) -> Failure:
    return Failure("WrongResult", message)
