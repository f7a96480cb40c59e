"""The checker: every value of a flow fits where it goes, or the flow is refused.

It returns the flow with what only the models know filled in: the JSON keys of fields, the defaults
of the input, literals as JSON. The input is what the caller sent, so its defaults are not there and
its validators have not run; what a step returned was written by pydantic. A step's input is read by
pydantic again; the workflow's result is not, so it must be exact (`Slot.exact`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, RootModel, TypeAdapter

from pgflows.definitions import Step
from pgflows.flow.constants import constant
from pgflows.flow.models import (
    MISSING,
    adapter,
    adds,
    computed_default,
    default_of,
    input_keys,
    keyword_names,
    models_in,
    only_checks,
    output_key,
    rewrites,
    schemas,
    serialized_by_hand,
    unreadable,
)
from pgflows.flow.nodes import (
    At,
    Attr,
    Construct,
    Expr,
    Flow,
    Input,
    Items,
    Literal,
    Return,
    Statement,
    Var,
)
from pgflows.flow.types import (
    assignable,
    is_model,
    leaves,
    limited,
    lossy,
    members,
    optional,
    plain,
    show,
)


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


def check(flow: Flow) -> Flow:
    """The same flow, complete; raises CompileError at the first value that does not fit."""
    checker = _Checker(flow)
    return replace(flow, body=tuple(checker.statement(statement) for statement in flow.body))


class _Checker:
    def __init__(self, flow: Flow) -> None:
        self.workflow = flow.workflow
        self.results: dict[str, type[BaseModel]] = {}
        schemas(self.workflow)
        for model in models_in(self.workflow.input_model):
            for name in model.model_fields:
                if computed_default(model, name):
                    raise self.workflow.signature.error(
                        f"the input's field {model.__name__}.{name} gets another default at each "
                        "reading; make it required, or give it a constant default"
                    )

    def statement(self, statement: Statement) -> Statement:
        if isinstance(statement, Return):
            slot = Slot(self.workflow.output_model, f"workflow {self.workflow.name} returns", True)
            return replace(statement, value=self.fit(statement.value, slot))
        step: Step[Any, Any] = statement.step
        slot = Slot(step.input_model, f"step {step.name} takes", False)
        checked = replace(statement, input=self.fit(statement.input, slot))
        if statement.var is not None:
            self.results[statement.var] = step.output_model
        return checked

    def refuse(self, at: At, message: str, allowed: str) -> Exception:
        return at.error(f"workflow {self.workflow.name}: {message}", allowed=allowed)

    def fit(self, value: Expr, slot: Slot) -> Expr:
        match value:
            case Literal():
                return self.literal(value, slot)
            case Items():
                return self.items(value, slot)
            case Construct():
                if not assignable(value.model, slot.annotation):
                    raise self.misfit(value.at, value.model, slot)
                return self.construct(value, exact=slot.exact)
        expr, known = self.known(value)
        if not assignable(known.annotation, slot.annotation):
            raise self.misfit(value.at, known.annotation, slot)
        if slot.exact:
            return self.exact(expr, known, slot)
        if not known.sent:
            for leaf in leaves(known.annotation):
                if is_model(leaf) and (why := unreadable(leaf)):
                    raise self.refuse(value.at, why, "models whose JSON they can read back")
        return expr

    def misfit(self, at: At, found: Any, slot: Slot) -> Exception:
        wanted = show(slot.annotation)
        if optional(found) and not optional(slot.annotation):
            allowed = f"`{wanted} | None` in the model, or a value that is never None"
        elif is_model(slot.annotation):
            built = f"{wanted}({_example(plain(slot.annotation)[0])})"
            allowed = f"a value of type {wanted}, such as `{built}`"
        else:
            allowed = f"a value of type {wanted}"
        return self.refuse(at, f"{slot.where} {wanted}, not {show(found)}", allowed)

    # what is read

    def known(self, value: Expr) -> tuple[Expr, Known]:
        """An input, result or field of these, with its type."""
        match value:
            case Input():
                return value, Known(self.workflow.input_model, True)
            case Var(name=name):
                return value, Known(self.results[name], False)
            case Attr():
                return self.attribute(value)
        raise self.refuse(value.at, "only results and inputs have fields", "a field of a result")

    def attribute(self, value: Attr) -> tuple[Attr, Known]:
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

    def stored_field(self, value: Attr, model: type[BaseModel]) -> Attr:
        """A field of what a step returned, as pydantic wrote it."""
        key = output_key(model, value.name)
        if key is None:
            what = f"{model.__name__}.{value.name} is left out of JSON"
            raise self.refuse(value.at, what, "fields that are written")
        if serialized_by_hand(model, value.name):
            what = f"{model.__name__}.{value.name} is written by a serializer of its own"
            raise self.refuse(value.at, what, "fields without one, or the whole model")
        return replace(value, keys=(key,))

    def sent_field(self, value: Attr, model: type[BaseModel]) -> Attr:
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

    # what is built

    def construct(self, value: Construct, *, exact: bool) -> Construct:
        model = value.model
        name = model.__name__
        if model.__init__ is not BaseModel.__init__:
            raise self.refuse(value.at, f"{name} has an __init__ of its own", "models without one")
        if exact and (why := adds(model)):
            raise self.refuse(
                value.at,
                f"{name} {why}, and the result is built without Python",
                "the result of a step that builds it",
            )
        keywords = keyword_names(model)
        given: dict[str, Expr] = {}
        for keyword, part in value.fields:
            if keyword not in keywords:
                has = ", ".join(keywords) or "none"
                raise self.refuse(part.at, f"{name} has no field {keyword!r}", f"its fields: {has}")
            if keywords[keyword] in given:
                raise self.refuse(part.at, f"{name}.{keyword} is given twice", "one value a field")
            given[keywords[keyword]] = self.fit(part, self.slot(model, keywords[keyword], exact))
        fields = []
        for field, info in model.model_fields.items():
            if field not in given and info.is_required():
                what = f"{name} needs {field!r} ({show(info.annotation)})"
                raise self.refuse(value.at, what, f"`{name}({field}=…)`")
            fields += self.field(model, field, given.get(field), value.at, exact=exact)
        return replace(value, fields=tuple(fields))

    def field(
        self, model: type[BaseModel], name: str, given: Expr | None, at: At, *, exact: bool
    ) -> list[tuple[str, Expr]]:
        """The field's JSON key and value; nothing where pydantic fills in the default itself."""
        if exact:
            key = output_key(model, name)
            value = Literal(default_of(model, name), at) if given is None else given
            return [(key, value)] if key is not None else []
        if given is None:
            return []
        keys = input_keys(model, name)
        return [(keys[0], given)] if keys else []

    def slot(self, model: type[BaseModel], name: str, exact: bool) -> Slot:
        info = model.model_fields[name]
        return Slot(
            info.annotation,
            f"{model.__name__}.{name} is",
            exact,
            tuple(info.metadata),
            adapter(model, name),
        )

    def literal(self, value: Literal, slot: Slot) -> Literal:
        if slot.adapter is None and is_model(slot.annotation):
            raise self.misfit(value.at, type(value.value), slot)
        reader = slot.adapter or TypeAdapter(slot.annotation)
        if slot.exact:
            for leaf in leaves(slot.annotation):
                if is_model(leaf):
                    raise self.misfit(value.at, type(value.value), replace(slot, annotation=leaf))
        try:
            return replace(value, value=constant(value.value, reader, exact=slot.exact))
        except ValueError as error:
            raise self.refuse(
                value.at,
                f"{slot.where} {show(slot.annotation)}: {error}",
                f"a literal that is a {show(slot.annotation)}",
            ) from error

    def items(self, value: Items, slot: Slot) -> Items:
        for member in members(slot.annotation):
            if member is Any or (getattr(member, "__origin__", member) is list):
                item = getattr(member, "__args__", (Any,))[0]
                inner = Slot(item, f"an item of {slot.where.removesuffix(' is')} is", slot.exact)
                return replace(value, items=tuple(self.fit(part, inner) for part in value.items))
        raise self.misfit(value.at, list, slot)

    # what nothing checks afterwards

    def exact(self, expr: Expr, known: Known, slot: Slot) -> Expr:
        """The value as pydantic would write it, although pydantic will not see it."""
        unchecked = [part for part in slot.limits if part not in known.limits]
        if (
            unchecked
            or not all(map(only_checks, slot.limits))
            or (limited(slot.annotation) and slot.annotation != known.annotation)
        ):
            raise self.refuse(
                expr.at,
                f"{slot.where} limited ({show(slot.annotation)}), and nothing would check that",
                "a field of the same limits, or the result of a step",
            )
        return self.written(expr, known.annotation) if known.sent else expr

    def written(self, expr: Expr, annotation: Any) -> Expr:
        """The caller's JSON of this type as pydantic would write it."""
        if lossy(annotation):
            what = f"a {lossy(annotation)} is not written as it was sent"
            raise self.refuse(expr.at, what, "other fields")
        annotation = plain(annotation)[0]
        if is_model(annotation):
            return self.rebuilt(expr, annotation)
        for leaf in leaves(annotation):
            if is_model(leaf) and (
                adds(leaf) or not all(i.is_required() for i in leaf.model_fields.values())
            ):
                what = f"{leaf.__name__} may be sent without its defaults"
                raise self.refuse(expr.at, what, "the result of a step that reads it")
        return expr

    def rebuilt(self, expr: Expr, model: type[BaseModel]) -> Construct:
        if why := adds(model):
            what = f"{model.__name__} {why}, and the result is built without Python"
            raise self.refuse(expr.at, what, "the result of a step")
        fields = []
        for name, info in model.model_fields.items():
            key = output_key(model, name)
            if key is not None:
                attr = self.sent_field(Attr(expr, name, expr.at), model)
                fields.append((key, self.written(attr, info.annotation)))
        return Construct(model, tuple(fields), expr.at)


def _example(model: type[BaseModel]) -> str:
    required = [name for name, info in model.model_fields.items() if info.is_required()]
    return ", ".join(f"{name}=…" for name in required)
