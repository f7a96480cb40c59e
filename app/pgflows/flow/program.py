"""A program: what the user wrote, as a tree.

A block is a sequence of statements; the values in it are `Name`, `Field`, `Literal`, `List`,
`Build` and `Apply`. The reader of Python source makes it, the checker completes it, and
`graph/lower.py` turns it into a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pgflows.definitions import Step, Workflow
from pgflows.errors import CompileError
from pgflows.flow.operators import Operator


@dataclass(frozen=True)
class At:
    """A place in a source file; columns count characters from 0."""

    file: str
    line: int
    column: int
    source: str

    def error(self, message: str, *, allowed: str) -> CompileError:
        return CompileError(
            message,
            file=self.file,
            line=self.line,
            column=self.column,
            source=self.source,
            allowed=allowed,
        )


@dataclass(frozen=True)
class Name:
    """A variable of the run: its input, or the result of an earlier step."""

    name: str
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Field:
    """A field of a model. The checker adds how JSON names it and what stands for it when absent."""

    of: Expr
    name: str
    at: At = field(compare=False, repr=False)
    keys: tuple[str, ...] = ()
    default: Literal | None = None


@dataclass(frozen=True)
class Literal:
    """A constant. Once checked, its value is what JSON can say."""

    value: Any
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class List:
    """A list of values."""

    items: tuple[Expr, ...]
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Build:
    """A model built from values; the checker turns the keywords into JSON keys."""

    model: type[BaseModel]
    fields: tuple[tuple[str, Expr], ...]
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Apply:
    """An operator and its arguments."""

    op: Operator
    args: tuple[Expr, ...]
    at: At = field(compare=False, repr=False)


Expr = Name | Field | Literal | List | Build | Apply


@dataclass(frozen=True)
class StepCall:
    """`var = await ctx.step(step, input)`; the result of a call without a target is not kept."""

    key: str
    step: Step[Any, Any]
    var: str | None
    input: Expr
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Return:
    """The end of the workflow and its result."""

    value: Expr
    at: At = field(compare=False, repr=False)


Statement = StepCall | Return
Block = tuple[Statement, ...]

INPUT = "@in"  # holds the workflow's input
RETURNED = "@r"  # holds the result of `return await ctx.step(…)`


@dataclass(frozen=True)
class Program:
    """A workflow as its author wrote it."""

    workflow: Workflow[Any, Any]
    body: Block

    def calls(self) -> Iterator[StepCall]:
        """Every step call, in graph order."""
        for statement in self.body:
            if isinstance(statement, StepCall):
                yield statement


def folded(value: Expr) -> Expr:
    """The value as a literal if it is constant, else the value itself."""
    match value:
        case List(items=items):
            constants = _constants(items)
            return value if constants is None else Literal(constants, value.at)
        case Apply(op=op, args=args):
            constants = _constants(args)
            if constants is not None and all(type(c) in op.takes for c in constants):
                return Literal(op.compute(*constants), value.at)
    return value


def _constants(values: tuple[Expr, ...]) -> list[Any] | None:
    literals = [part for part in map(folded, values) if isinstance(part, Literal)]
    return [part.value for part in literals] if len(literals) == len(values) else None
