"""The tree that a workflow becomes: the only thing that compile produces and render reads.

A block is a sequence of statements. Branches and loops will be statements that hold blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pgflows.definitions import Step, Workflow
from pgflows.errors import CompileError


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
class Input:
    """The workflow's input."""

    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Var:
    """The result of an earlier step."""

    name: str
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Attr:
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
class Items:
    """A list whose items are computed."""

    items: tuple[Expr, ...]
    at: At = field(compare=False, repr=False)


@dataclass(frozen=True)
class Construct:
    """A model built from expressions; the checker turns the keywords into JSON keys."""

    model: type[BaseModel]
    fields: tuple[tuple[str, Expr], ...]
    at: At = field(compare=False, repr=False)


Expr = Input | Var | Attr | Literal | Items | Construct


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

RETURNED = "@r"  # holds the result of `return await ctx.step(…)`


@dataclass(frozen=True)
class Flow:
    """A workflow as a tree."""

    workflow: Workflow[Any, Any]
    body: Block

    def calls(self) -> Iterator[StepCall]:
        """Every step call, in graph order."""
        for statement in self.body:
            if isinstance(statement, StepCall):
                yield statement
