"""What is known of the values that a program reads: inputs, results and their fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, RootModel, TypeAdapter

from pgflows.definitions import Workflow
from pgflows.errors import CompileError
from pgflows.flow.program import INPUT, At, Expr, Field, Literal, Name
from pgflows.flow.typing.models import (
    MISSING,
    default_of,
    input_keys,
    output_key,
    rewrites,
    serialized_by_hand,
)
from pgflows.flow.typing.types import is_model, lossy, optional, plain, show


@dataclass(frozen=True)
class Slot:
    """A place that takes a value: its type, its limits, and how people call it."""

    annotation: Any
    where: str
    exact: bool
    limits: tuple[Any, ...] = ()
    adapter: TypeAdapter[Any] | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a value: its type, and whether the caller wrote its JSON (`sent`)."""

    annotation: Any
    sent: bool
    limits: tuple[Any, ...] = ()


class Reads:
    """What one workflow reads; `results` has the models of the results so far."""

    def __init__(self, workflow: Workflow[Any, Any]) -> None:
        self.workflow = workflow
        self.results: dict[str, type[BaseModel]] = {}

    def refuse(self, at: At, message: str, allowed: str) -> CompileError:
        return at.error(f"workflow {self.workflow.name}: {message}", allowed=allowed)

    def known(self, value: Expr) -> tuple[Expr, Known]:
        """An input, result or field of these, with its type."""
        match value:
            case Name(name=name):
                if name == INPUT:
                    return value, Known(self.workflow.input_model, True)
                return value, Known(self.results[name], False)
            case Field():
                return self.attribute(value)
        raise self.refuse(value.at, "only results and inputs have fields", "a field of a result")

    def attribute(self, value: Field) -> tuple[Field, Known]:
        of, owner = self.known(value.of)
        if optional(owner.annotation):
            raise self.refuse(
                value.at,
                f"`.{value.name}` of a value that may be None ({show(owner.annotation)})",
                "fields of a value that is always there",
            )
        model = plain(owner.annotation)[0]
        if not is_model(model) or issubclass(model, RootModel):
            raise self.refuse(
                value.at, f"`.{value.name}` of {show(model)}", "fields of pydantic models"
            )
        has = ", ".join(name for name in model.model_fields) or "none"
        if value.name in model.model_computed_fields and not owner.sent:
            annotation: Any = model.model_computed_fields[value.name].return_type
            limits: tuple[Any, ...] = ()
        elif value.name in model.model_fields:
            info = model.model_fields[value.name]
            annotation, limits = info.annotation, tuple(info.metadata)
        else:
            what = f"`.{value.name}` is not a field of {model.__name__}"
            raise self.refuse(value.at, what, f"its fields: {has}")
        read = self.sent_field if owner.sent else self.stored_field
        attr = read(replace(value, of=of), model)
        if lossy(annotation) and not owner.sent:
            raise self.refuse(
                value.at, f"a {lossy(annotation)} is not kept by JSON", "fields that JSON keeps"
            )
        return attr, Known(annotation, owner.sent, limits)

    def stored_field(self, value: Field, model: type[BaseModel]) -> Field:
        """A field of what a step returned, as pydantic wrote it."""
        key = output_key(model, value.name)
        if key is None:
            what = f"{model.__name__}.{value.name} is left out of JSON"
            raise self.refuse(value.at, what, "fields that are written")
        if serialized_by_hand(model, value.name):
            what = f"{model.__name__}.{value.name} is written by a serializer of its own"
            raise self.refuse(value.at, what, "fields without one, or the whole model")
        return replace(value, keys=(key,))

    def sent_field(self, value: Field, model: type[BaseModel]) -> Field:
        """A field of the input, as the caller wrote it."""
        if why := rewrites(model):
            what = f"{model.__name__} {why}, which only a step's input goes through"
            raise self.refuse(value.at, what, "the whole model as a step's input")
        keys = input_keys(model, value.name)
        if keys is None:
            what = f"{model.__name__}.{value.name} is read by an alias path"
            raise self.refuse(value.at, what, "fields with one name, or the whole model")
        default = default_of(model, value.name)
        literal = None if default is MISSING else Literal(default, value.at)
        return replace(value, keys=keys, default=literal)
