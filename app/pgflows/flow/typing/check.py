"""The checker: every value of a program fits where it goes, or the program is refused.

It returns the program with what only the models know filled in: the JSON keys of fields, the
defaults of the input, literals as JSON. The input is what the caller sent, so its defaults are not
there and its validators have not run; what a step returned was written by pydantic. A step's input
is read by pydantic again; the workflow's result is not, so it must be exact (`Slot.exact`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pgflows.definitions import Step
from pgflows.errors import CompileError
from pgflows.flow.program import (
    Apply,
    At,
    Build,
    Expr,
    List,
    Literal,
    Program,
    Return,
    Statement,
    folded,
)
from pgflows.flow.typing.constants import constant
from pgflows.flow.typing.exact import exact
from pgflows.flow.typing.models import (
    adapter,
    adds,
    computed_default,
    default_of,
    input_keys,
    keyword_names,
    models_in,
    output_key,
    schemas,
    unreadable,
)
from pgflows.flow.typing.reads import Reads, Slot
from pgflows.flow.typing.types import assignable, is_model, leaves, members, optional, plain, show


def check(program: Program) -> Program:
    """The same program, complete; raises CompileError at the first value that does not fit."""
    checker = _Checker(program)
    return replace(program, body=tuple(checker.statement(statement) for statement in program.body))


class _Checker:
    def __init__(self, program: Program) -> None:
        self.workflow = program.workflow
        self.reads = Reads(self.workflow)
        self.refuse = self.reads.refuse
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
            self.reads.results[statement.var] = step.output_model
        return checked

    def fit(self, value: Expr, slot: Slot) -> Expr:
        match value := folded(value):
            case Literal():
                return self.literal(value, slot)
            case Apply(op=op):
                what = f"an operator, {op.spelled}, where {op.limits}"
                raise self.refuse(value.at, f"{what} is all that can be translated", op.example)
            case List():
                return self.items(value, slot)
            case Build():
                if not assignable(value.model, slot.annotation):
                    raise self.misfit(value.at, value.model, slot)
                return self.construct(value, exact=slot.exact)
        expr, known = self.reads.known(value)
        if not assignable(known.annotation, slot.annotation):
            raise self.misfit(value.at, known.annotation, slot)
        if slot.exact:
            return exact(self.reads, expr, known, slot)
        if not known.sent:
            for leaf in leaves(known.annotation):
                if is_model(leaf) and (why := unreadable(leaf)):
                    raise self.refuse(value.at, why, "models whose JSON they can read back")
        return expr

    def misfit(self, at: At, found: Any, slot: Slot) -> CompileError:
        wanted = show(slot.annotation)
        if optional(found) and not optional(slot.annotation):
            allowed = f"`{wanted} | None` in the model, or a value that is never None"
        elif is_model(slot.annotation):
            built = f"{wanted}({_example(plain(slot.annotation)[0])})"
            allowed = f"a value of type {wanted}, such as `{built}`"
        else:
            allowed = f"a value of type {wanted}"
        return self.refuse(at, f"{slot.where} {wanted}, not {show(found)}", allowed)

    def construct(self, value: Build, *, exact: bool) -> Build:
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

    def items(self, value: List, slot: Slot) -> List:
        for member in members(slot.annotation):
            if member is Any or (getattr(member, "__origin__", member) is list):
                item = getattr(member, "__args__", (Any,))[0]
                inner = Slot(item, f"an item of {slot.where.removesuffix(' is')} is", slot.exact)
                return replace(value, items=tuple(self.fit(part, inner) for part in value.items))
        raise self.misfit(value.at, list, slot)


def _example(model: type[BaseModel]) -> str:
    required = [name for name, info in model.model_fields.items() if info.is_required()]
    return ", ".join(f"{name}=…" for name in required)
