"""The table of what the compiler accepts and refuses.

A row for each form of statement, form of value and operator that is accepted, and for each kind of
syntax that is refused. The compiler, its messages, docs/python.md and the tests of the compiler
read this table. Examples are of a workflow with the input `order`; `paid` is the result of a step.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Form:
    """A form of statement or value that is accepted."""

    name: str
    example: str
    limits: str = ""


@dataclass(frozen=True)
class Operator:
    """An operator: how Python spells it, what it takes, what it is on constants and in SQL.

    `sql` is a template over the arguments; None where it is accepted for constants only.
    """

    spelled: str
    syntax: type[ast.AST]
    takes: tuple[type, ...]
    gives: str
    compute: Callable[..., Any]
    sql: str | None
    limits: str
    example: str


@dataclass(frozen=True)
class Refused:
    """A kind of syntax that is refused, what people call it, and an example."""

    syntax: type[ast.AST]
    word: str
    example: str


STATEMENTS = (
    Form("`name = await ctx.step(step, value)`", "paid = await ctx.step(charge, order)"),
    Form("`await ctx.step(step, value)`", "await ctx.step(charge, order)"),
    Form("one `return value` at the end", "return paid", "or `return await ctx.step(step, value)`"),
)

VALUES = (
    Form("the workflow's input", "order"),
    Form("an earlier result", "paid"),
    Form("a field of these", "paid.order_id", "not of a value that may be None"),
    Form("a literal", '{"text": ["a", 1.5, True, None]}', "JSON, or a member of an enum"),
    Form("a list of such values", "[order.order_id, paid.order_id]"),
    Form("a model built from such values", "Paid(order_id=order.order_id)", "keywords only"),
)

OPERATORS = (
    Operator(
        spelled="-x",
        syntax=ast.USub,
        takes=(int, float),
        gives="the type of x",
        compute=operator.neg,
        sql=None,
        limits="x is a number in the source",
        example="-1.5",
    ),
)

REFUSED_STATEMENTS = (
    Refused(ast.If, "`if`", "if order.amount:\n    pass"),
    Refused(ast.For, "`for`", "for item in []:\n    pass"),
    Refused(ast.AsyncFor, "`async for`", "async for item in []:\n    pass"),
    Refused(ast.While, "`while`", "while True:\n    pass"),
    Refused(ast.Try, "`try`", "try:\n    pass\nfinally:\n    pass"),
    Refused(ast.With, "`with`", "with order:\n    pass"),
    Refused(ast.AsyncWith, "`async with`", "async with order:\n    pass"),
    Refused(ast.Raise, "`raise`", "raise ValueError"),
    Refused(ast.Assert, "`assert`", "assert True"),
    Refused(ast.Import, "`import`", "import os"),
    Refused(ast.ImportFrom, "`import`", "from os import path"),
    Refused(ast.Pass, "`pass`", "pass"),
    Refused(ast.Delete, "`del`", "del order"),
    Refused(ast.Global, "`global`", "global RATE"),
    Refused(ast.Nonlocal, "`nonlocal`", "nonlocal outer"),
    Refused(ast.Match, "`match`", "match order:\n    case _:\n        pass"),
    Refused(ast.AugAssign, "an augmented assignment", "order += 1"),
    Refused(ast.FunctionDef, "a nested function", "def inner(): ..."),
    Refused(ast.AsyncFunctionDef, "a nested function", "async def inner(): ..."),
    Refused(ast.ClassDef, "a nested class", "class Inner: ..."),
)

REFUSED_VALUES = (
    Refused(ast.Subscript, "`[…]`", "order['order_id']"),
    Refused(ast.BinOp, "an operator", "order.amount + 1"),
    Refused(ast.UnaryOp, "an operator", "not True"),
    Refused(ast.BoolOp, "`and`/`or`", "order.order_id or 'none'"),
    Refused(ast.Compare, "a comparison", "1 < 2"),
    Refused(ast.JoinedStr, "an f-string", "f'{order.order_id}'"),
    Refused(ast.IfExp, "a conditional expression", "'a' if True else 'b'"),
    Refused(ast.Lambda, "a lambda", "lambda: 'a'"),
    Refused(ast.Tuple, "a tuple (write a list)", "('a', 'b')"),
    Refused(ast.Set, "a set (write a list)", "{'a'}"),
    Refused(ast.ListComp, "a comprehension", "[x for x in 'a']"),
    Refused(ast.NamedExpr, "`:=`", "(x := 'a')"),
    Refused(ast.Constant, "this literal", "b'bytes'"),
)

_WORDS = {row.syntax: row.word for row in (*REFUSED_STATEMENTS, *REFUSED_VALUES)} | {
    ast.Starred: "`*`",
    ast.Call: "a call",
    ast.Name: "a name",
    ast.Attribute: "an attribute",
}


def word(node: ast.AST) -> str:
    """What people call this kind of syntax."""
    return _WORDS.get(type(node), "this")


def accepted(forms: tuple[Form, ...], last: str) -> str:
    """The forms in one phrase; `last` stands before the last one."""
    *names, end = (form.name for form in forms)
    return f"{', '.join(names)} {last} {end}"


def operator_of(syntax: ast.AST) -> Operator | None:
    """The row of this operator; None where the compiler has none."""
    return next((row for row in OPERATORS if isinstance(syntax, row.syntax)), None)
