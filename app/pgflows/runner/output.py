"""What a step returned, as the JSON that the ledger keeps."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel

from pgflows.database.storable import Unstorable, check_document, check_places, places
from pgflows.definitions import Step
from pgflows.runner.failure import Failure

LARGEST_OUTPUT = 8 * 1024 * 1024  # bytes
INSTEAD_OF_NUMBERS = ("null", "NaN", "Infinity")  # what pydantic writes for numbers that JSON lacks


def as_json(step: Step[Any, Any], output: Any) -> bytes | Failure:
    """The result as JSON, if it is what the step promised and can be stored and shown again."""
    if not isinstance(output, BaseModel) or not isinstance(output, step.output_model):
        name = type(output).__name__
        return _wrong(f"the step returned {name}, not {step.output_model.__name__}")
    try:
        text = output.model_dump_json(by_alias=True)
    except BaseException as e:  # a field that JSON has no form for, or a serializer of the user's
        return _unwritable(step, output, e)
    try:
        raw = check_document(text).encode()
        if any(word in text for word in INSTEAD_OF_NUMBERS):
            _check_numbers(output, text)
    except Unstorable as e:
        return _wrong(f"the result of step {step.name} cannot be kept: {e}")
    except BaseException as e:  # a serializer of the user's
        return _unwritable(step, output, e)
    if len(raw) > LARGEST_OUTPUT:
        text = f"the result of {step.name} has {len(raw)} bytes, the limit is {LARGEST_OUTPUT}"
        return Failure("OutputTooLarge", text)
    return raw


def _check_numbers(output: BaseModel, text: str) -> None:
    """Raises Unstorable for a number that JSON lacks, unless its model writes it as a text."""
    written: dict[str, Any] | None = None
    for path, found, _ in places(output.model_dump(by_alias=True)):
        if isinstance(found, float) and not math.isfinite(found):
            if written is None:
                written = {p: v for p, v, _ in places(json.loads(text))}
            if not isinstance(written.get(path), str):
                raise Unstorable(f"the number {found}", path)


def _unwritable(step: Step[Any, Any], output: BaseModel, error: BaseException) -> Failure:
    try:
        check_places(output.model_dump(by_alias=True))
    except Unstorable as e:
        return _wrong(f"the result of step {step.name} cannot be kept: {e}")
    except BaseException as e:  # a serializer of the user's: `error` says as much
        error = e
    failure = Failure.of(error)
    text = f"the result of step {step.name} cannot be written as JSON: {failure.message}"
    return Failure("WrongResult", text, traceback=failure.traceback)


def _wrong(message: str) -> Failure:
    return Failure("WrongResult", message)
