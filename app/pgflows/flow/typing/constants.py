"""Literals of a workflow as JSON, checked by the field that they are for."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pgflows.database.storable import check_text


def constant(value: Any, adapter: TypeAdapter[Any], *, exact: bool) -> Any:
    """The literal as JSON; raises ValueError if the field would refuse or change it.

    Where pydantic reads the value again it stays as written; where it does not (`exact`), it is
    what pydantic would write.
    """
    plain = as_json(value)
    try:
        from_python = adapter.validate_python(value)
        from_json = adapter.validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error
    if from_python != from_json or type(from_python) is not type(from_json):
        raise ValueError(f"{value!r} would arrive as {from_json!r}")
    if not exact:
        return plain
    return as_json(adapter.dump_python(from_json, mode="json", by_alias=True))


def as_json(value: Any) -> Any:
    """The literal in JSON's types; raises ValueError for what JSON in PostgreSQL cannot hold."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no infinity")
        if value == 0 and math.copysign(1, value) < 0:
            raise ValueError("PostgreSQL's numbers have no negative zero")
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_text(key): as_json(item) for key, item in value.items()}
    raise ValueError(f"a {type(value).__name__} is not JSON")


def _text(value: str) -> str:
    return str(check_text(value))
