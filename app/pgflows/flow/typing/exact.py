"""Values that nothing checks afterwards: a workflow's result is stored as SQL builds it.

Such a value must be exactly what pydantic would write, although pydantic does not see it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pgflows.flow.program import Build, Expr, Field
from pgflows.flow.typing.models import adds, only_checks, output_key
from pgflows.flow.typing.reads import Known, Reads, Slot
from pgflows.flow.typing.types import is_model, leaves, limited, lossy, plain, show


def exact(reads: Reads, expr: Expr, known: Known, slot: Slot) -> Expr:
    """The value as pydantic would write it, although pydantic will not see it."""
    unchecked = [part for part in slot.limits if part not in known.limits]
    if (
        unchecked
        or not all(map(only_checks, slot.limits))
        or (limited(slot.annotation) and slot.annotation != known.annotation)
    ):
        raise reads.refuse(
            expr.at,
            f"{slot.where} limited ({show(slot.annotation)}), and nothing would check that",
            "a field of the same limits, or the result of a step",
        )
    return written(reads, expr, known.annotation) if known.sent else expr


def written(reads: Reads, expr: Expr, annotation: Any) -> Expr:
    """The caller's JSON of this type as pydantic would write it."""
    if lossy(annotation):
        what = f"a {lossy(annotation)} is not written as it was sent"
        raise reads.refuse(expr.at, what, "other fields")
    annotation = plain(annotation)[0]
    if is_model(annotation):
        return rebuilt(reads, expr, annotation)
    for leaf in leaves(annotation):
        if is_model(leaf) and (
            adds(leaf) or not all(i.is_required() for i in leaf.model_fields.values())
        ):
            what = f"{leaf.__name__} may be sent without its defaults"
            raise reads.refuse(expr.at, what, "the result of a step that reads it")
    return expr


def rebuilt(reads: Reads, expr: Expr, model: type[BaseModel]) -> Build:
    if why := adds(model):
        what = f"{model.__name__} {why}, and the result is built without Python"
        raise reads.refuse(expr.at, what, "the result of a step")
    fields = []
    for name, info in model.model_fields.items():
        key = output_key(model, name)
        if key is not None:
            attr = reads.sent_field(Field(expr, name, expr.at), model)
            fields.append((key, written(reads, attr, info.annotation)))
    return Build(model, tuple(fields), expr.at)
