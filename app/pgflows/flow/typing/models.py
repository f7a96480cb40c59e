"""What the compiler needs to know of pydantic models.

How JSON names a field, what stands for it when it is absent, and whether reading or writing the
model does more than keep the values it was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import annotated_types
from pydantic import BaseModel, RootModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from pgflows.database.storable import check_json
from pgflows.definitions import Workflow
from pgflows.flow.typing.types import is_model, leaves, lossy

MISSING = object()
CONSTANT_FACTORIES = (list, dict, set, frozenset, tuple, str, int, float, bool)
CHECKING = {"pattern", "max_digits", "decimal_places", "strict", "allow_inf_nan"}
CHANGING_CONFIG = ("str_strip_whitespace", "str_to_lower", "str_to_upper", "coerce_numbers_to_str")


def input_keys(model: type[BaseModel], name: str) -> tuple[str, ...] | None:
    """The JSON keys that may hold the field on the way in, best first; None for alias paths."""
    info = model.model_fields[name]
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    if alias is None:
        return (name,)
    if not isinstance(alias, str):
        return None
    config = model.model_config
    if config.get("validate_by_alias") is False:
        return (name,)
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return (alias, name) if alias != name else (name,)
    return (alias,)


def output_key(model: type[BaseModel], name: str) -> str | None:
    """The JSON key that holds the field on the way out; None if it is left out."""
    if computed := model.model_computed_fields.get(name):
        return computed.alias or name
    info = model.model_fields[name]
    if info.exclude or getattr(info, "exclude_if", None):
        return None
    return info.serialization_alias or info.alias or name


def keyword_names(model: type[BaseModel]) -> dict[str, str]:
    """Which keyword of the constructor sets which field."""
    return {key: name for name in model.model_fields for key in input_keys(model, name) or ()}


def adapter(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """What validates and writes one field, without the model's own validators."""
    info = model.model_fields[name]
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[annotation, *info.metadata]
    if is_model(annotation):
        return TypeAdapter(annotation)
    return TypeAdapter(annotation, config=_value_config(model))


def _value_config(model: type[BaseModel]) -> Any:
    kept = ("arbitrary_types_allowed", "use_enum_values", *CHANGING_CONFIG)
    return {key: value for key, value in model.model_config.items() if key in kept}


def default_of(model: type[BaseModel], name: str) -> Any:
    """The field's constant default as JSON; MISSING if it has none, or one computed each time."""
    info = model.model_fields[name]
    factory: Any = info.default_factory
    value: Any
    if factory in CONSTANT_FACTORIES:
        value = factory()
    elif factory is not None or info.is_required():
        return MISSING
    else:
        value = info.default
    return adapter(model, name).dump_python(value, mode="json", by_alias=True, warnings=False)


def computed_default(model: type[BaseModel], name: str) -> bool:
    """Whether the field's default is made anew each time."""
    factory = model.model_fields[name].default_factory
    return factory is not None and factory not in CONSTANT_FACTORIES


def rewrites(model: type[BaseModel]) -> str | None:
    """Why reading this model may change the values it is given; None if it only checks them."""
    parts = model.__pydantic_decorators__
    if (
        parts.field_validators
        or parts.model_validators
        or parts.root_validators
        or parts.validators
    ):
        return "has validators"
    if any(model.model_config.get(key) for key in CHANGING_CONFIG):
        return "changes strings by its configuration"
    if not all(only_checks(part) for i in model.model_fields.values() for part in i.metadata):
        return "has fields that change their values"
    if model.model_post_init is not BaseModel.model_post_init and not model.__private_attributes__:
        return "has model_post_init"
    if issubclass(model, RootModel):
        return "is a root model"
    return None


def adds(model: type[BaseModel]) -> str | None:
    """Why what the model writes is more than the values it was given; None if it is the same."""
    parts = model.__pydantic_decorators__
    if parts.field_serializers or parts.model_serializers:
        return "has serializers"
    if model.model_computed_fields:
        return "has computed fields"
    if any(computed_default(model, name) for name in model.model_fields):
        return "has a default that is made anew each time"
    if model.model_config.get("extra") == "allow":
        return "keeps unknown fields"
    return rewrites(model)


def only_checks(part: Any) -> bool:
    """Whether a piece of metadata checks or documents a value and never changes it."""
    if isinstance(part, annotated_types.BaseMetadata | annotated_types.DocInfo):
        return True
    return set(getattr(part, "__dict__", {"?": 0})) <= CHECKING


def serialized_by_hand(model: type[BaseModel], name: str) -> bool:
    """Whether a serializer decides how the field is written."""
    parts = model.__pydantic_decorators__
    if parts.model_serializers:
        return True
    return any(
        name in decorator.info.fields or "*" in decorator.info.fields
        for decorator in parts.field_serializers.values()
    )


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every model inside of it."""
    seen: set[type[BaseModel]] = set()
    todo = [model]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        yield current
        for info in current.model_fields.values():
            todo += [leaf for leaf in leaves(info.annotation) if is_model(leaf)]


def schemas(workflow: Workflow[Any, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schemas of the workflow's input and result; DefinitionError if there are none."""
    try:
        found = (
            workflow.input_model.model_json_schema(mode="validation"),
            workflow.output_model.model_json_schema(mode="serialization"),
        )
        check_json(json.dumps(found, ensure_ascii=False, allow_nan=False))
    except (PydanticInvalidForJsonSchema, ValueError) as error:
        raise workflow.signature.error(f"its models have no JSON schema: {error}") from error
    return found


def unreadable(model: type[BaseModel]) -> str | None:
    """Why what the model writes cannot be read back by it; None if it can."""
    for part in models_in(model):
        for name, info in part.model_fields.items():
            where = f"{part.__name__}.{name}"
            if kind := lossy(info.annotation) or next(
                filter(None, map(lossy, info.metadata)), None
            ):
                return f"{where} is a {kind}, which JSON does not keep"
            key, keys = output_key(part, name), input_keys(part, name)
            if key is None:
                if info.is_required():
                    return f"{where} is required but left out of JSON"
            elif keys is None or key not in keys:
                return f"{where} is written as {key!r} but read by another alias"
        if part.model_computed_fields and part.model_config.get("extra") == "forbid":
            return f"{part.__name__} writes computed fields that it forbids when read"
    return None
