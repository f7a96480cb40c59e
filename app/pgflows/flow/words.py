"""What the compiler says: the forms it accepts, and what people call the syntax it refuses."""

from __future__ import annotations

import ast

STATEMENTS = (
    "`name = await ctx.step(step, value)`, `await ctx.step(step, value)` "
    "and one `return value` at the end"
)
VALUES = (
    "the workflow's input, an earlier result, a field of these, a literal, "
    "or a model built from such values"
)


def word(node: ast.AST) -> str:
    """What people call this kind of syntax."""
    names = {
        ast.If: "`if`",
        ast.For: "`for`",
        ast.AsyncFor: "`async for`",
        ast.While: "`while`",
        ast.Try: "`try`",
        ast.With: "`with`",
        ast.AsyncWith: "`async with`",
        ast.Raise: "`raise`",
        ast.Assert: "`assert`",
        ast.Import: "`import`",
        ast.ImportFrom: "`import`",
        ast.Pass: "`pass`",
        ast.Delete: "`del`",
        ast.Global: "`global`",
        ast.Nonlocal: "`nonlocal`",
        ast.Match: "`match`",
        ast.AugAssign: "an augmented assignment",
        ast.FunctionDef: "a nested function",
        ast.AsyncFunctionDef: "a nested function",
        ast.ClassDef: "a nested class",
        ast.Subscript: "`[…]`",
        ast.BinOp: "an operator",
        ast.UnaryOp: "an operator",
        ast.BoolOp: "`and`/`or`",
        ast.Compare: "a comparison",
        ast.JoinedStr: "an f-string",
        ast.IfExp: "a conditional expression",
        ast.Lambda: "a lambda",
        ast.Tuple: "a tuple (write a list)",
        ast.Set: "a set (write a list)",
        ast.NamedExpr: "`:=`",
        ast.Starred: "`*`",
        ast.Constant: "this literal",
        ast.Call: "a call",
        ast.Name: "a name",
        ast.Attribute: "an attribute",
    }
    return names.get(type(node), "this")
