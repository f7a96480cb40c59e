"""Whether a value of one annotation certainly fits another, and whether JSON keeps it as it is."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

from pydantic import BaseModel, Json, SecretBytes, SecretStr

Metadata = tuple[Any, ...]

NATIVE = (bool, int, float, str, type(None))
CONTAINERS = (list, set, frozenset, tuple, dict)


def plain(annotation: Any) -> tuple[Any, Metadata]:
    """The annotation without `Annotated`, aliases and `NewType`, and the metadata it carried."""
    metadata: Metadata = ()
    while True:
        if get_origin(annotation) is Annotated:
            metadata += tuple(annotation.__metadata__)
            annotation = annotation.__origin__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType" and not get_args(annotation):
            annotation = annotation.__value__
        elif annotation is None:
            return type(None), metadata
        else:
            return annotation, metadata


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; any other annotation is its only one."""
    annotation, _ = plain(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for arg in get_args(annotation) for m in members(arg))
    return (annotation,)


def is_model(annotation: Any) -> bool:
    annotation, _ = plain(annotation)
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def optional(annotation: Any) -> bool:
    return type(None) in members(annotation)


def assignable(source: Any, target: Any) -> bool:
    """Whether every value of `source`, as JSON, is the same value for `target`."""
    source, _ = plain(source)
    target, _ = plain(target)
    if target is Any or target is object or source == target:
        return True
    if source is Any:
        return False
    if len(members(source)) > 1:
        return all(assignable(member, target) for member in members(source))
    if len(members(target)) > 1:
        fits = [m for m in members(target) if assignable(source, m)]
        # JSON has strings only: beside `str` a date would come back as text
        return bool(fits) and (source in fits or str not in members(target) or _native(source))
    return _one_to_one(source, target)


def _one_to_one(source: Any, target: Any) -> bool:
    if get_origin(source) is Literal:
        values = get_args(source)
        if get_origin(target) is Literal:
            return all(_among(value, get_args(target)) for value in values)
        return all(assignable(type(value), target) for value in values)
    container = get_origin(source) or source
    if container in CONTAINERS:
        return _containers(source, target)
    if is_model(source) and is_model(target):
        return issubclass(source, target) and not _forbids_more(source, target)
    return source is int and target is float


def _containers(source: Any, target: Any) -> bool:
    kind = get_origin(source) or source
    if kind is not (get_origin(target) or target):
        return False
    ours, theirs = get_args(source), get_args(target)
    if not theirs:
        return True
    if kind is tuple:
        if Ellipsis in theirs:
            return bool(ours) and all(assignable(o, theirs[0]) for o in ours if o is not Ellipsis)
        if Ellipsis in ours:
            return False
    return len(ours) == len(theirs) and all(
        assignable(o, t) for o, t in zip(ours, theirs, strict=True)
    )


def _native(annotation: Any) -> bool:
    return annotation in NATIVE or is_model(annotation) or get_origin(annotation) is Literal


def _among(value: object, allowed: tuple[Any, ...]) -> bool:
    return any(value == other and type(value) is type(other) for other in allowed)


def _forbids_more(source: type[BaseModel], target: type[BaseModel]) -> bool:
    """A model that forbids extra fields cannot read a subclass that has more of them."""
    return target.model_config.get("extra") == "forbid" and (
        set(source.model_fields) | set(source.model_computed_fields)
    ) > set(target.model_fields)


def leaves(annotation: Any) -> Iterator[Any]:
    """Every type that an annotation mentions."""
    annotation, metadata = plain(annotation)
    yield annotation
    yield from metadata
    for argument in get_args(annotation):
        if get_origin(annotation) is not Literal:
            yield from leaves(argument)


def lossy(annotation: Any) -> str | None:
    """The name of a type in the annotation whose JSON form cannot be read back."""
    for leaf in leaves(annotation):
        if leaf in (SecretStr, SecretBytes):
            return str(leaf.__name__)
        if Json in (leaf, type(leaf)):
            return "Json"
    return None


def show(annotation: Any) -> str:
    """The annotation as people write it."""
    annotation, _ = plain(annotation)
    if annotation is type(None):
        return "None"
    parts = members(annotation)
    if len(parts) > 1:
        return " | ".join(show(part) for part in parts)
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    if get_origin(annotation) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(annotation)))}]"
    if isinstance(get_origin(annotation), type):
        inside = ", ".join("..." if a is Ellipsis else show(a) for a in get_args(annotation))
        return f"{typing.cast('type', get_origin(annotation)).__name__}[{inside}]"
    return str(annotation)


def limited(annotation: Any) -> bool:
    """Whether anything in the annotation asks for more than a type."""
    annotation, metadata = plain(annotation)
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    return bool(metadata) or any(limited(argument) for argument in arguments)
