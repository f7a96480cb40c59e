"""An input that fits a model: its examples and defaults, else something of the right type."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

FORMATS = {
    "date-time": "2024-01-31T12:00:00Z",
    "date": "2024-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "",
}
DEEPEST = 8


def sample(model: type[BaseModel]) -> Any:
    """JSON for the model's required fields, from its schema: a validator may still refuse it."""
    schema = model.model_json_schema(mode="validation")
    return _value(schema, schema.get("$defs", {}), 0)


def _value(schema: dict[str, Any], known: dict[str, Any], depth: int) -> Any:
    if examples := schema.get("examples"):
        return examples[0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    if reference := schema.get("$ref"):
        return _value(known.get(reference.rpartition("/")[2], {}), known, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _value(schema[key][0], known, depth + 1)
    match schema.get("type"):
        case "object":
            return _object(schema, known, depth)
        case "array":
            return _array(schema, known, depth)
        case "string":
            return _string(schema)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
    return None


def _object(schema: dict[str, Any], known: dict[str, Any], depth: int) -> dict[str, Any]:
    fields = schema.get("properties", {})
    if depth > DEEPEST:
        return {}
    required = schema.get("required", [])
    return {
        name: _value(part, known, depth + 1)
        for name, part in fields.items()
        if name in required or part.get("examples")
    }


def _array(schema: dict[str, Any], known: dict[str, Any], depth: int) -> list[Any]:
    if depth > DEEPEST:
        return []
    if parts := schema.get("prefixItems"):
        return [_value(part, known, depth + 1) for part in parts]
    return [_value(schema.get("items", {}), known, depth + 1)] * schema.get("minItems", 1)


def _string(schema: dict[str, Any]) -> str:
    if known := FORMATS.get(schema.get("format", "")):
        return known
    text = str(schema.get("title", "text")).lower()
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _number(schema: dict[str, Any]) -> Any:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    if least is None:
        return 1 if most is None or most > 1 else most - step
    if "minimum" in schema:
        return max(least, 1) if most is None or most > 1 else least
    if most is not None and least + step >= most:
        return (least + most) / 2
    return least + step
