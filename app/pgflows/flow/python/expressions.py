"""Reads the values of a workflow: Python expressions, in the scope of one function."""

from __future__ import annotations

import ast
from enum import Enum
from typing import Any

from pydantic import BaseModel

from pgflows.flow.operators import VALUES as FORMS
from pgflows.flow.operators import accepted, operator_of, word
from pgflows.flow.program import Apply, At, Build, Expr, Field, List, Literal, Name, folded
from pgflows.flow.python.scope import Scope
from pgflows.flow.python.source import NOT_FOUND

VALUES = accepted(FORMS, "or")


class Expressions:
    """Reads expressions as values of the program."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.refuse = scope.refuse

    def value(self, node: ast.expr) -> Expr:
        at = self.scope.source.at(node)
        match node:
            case ast.Name(id=name) if name == self.scope.ctx:
                raise self.refuse(node, f"`{name}` is the context, not a value", VALUES)
            case ast.Name(id=name) if name in self.scope.bound:
                return Name(self.scope.bound[name], at)
            case ast.Name(id=name) if name in self.scope.locals:
                raise self.refuse(node, f"`{name}` is used before it is assigned", VALUES)
            case ast.Name(id=name):
                raise self.refuse(node, f"`{name}` comes from outside of the workflow", VALUES)
            case ast.Attribute():
                return self.attribute(node, at)
            case ast.Call():
                return self.construct(node, at)
            case ast.Await():
                raise self.refuse(
                    node, "a step inside an expression: assign its result first", VALUES
                )
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return Literal(value, at)
            case ast.UnaryOp(op=syntax, operand=operand) if op := operator_of(syntax):
                return Apply(op, (self.value(operand),), at)
            case ast.List(elts=elements):
                return List(tuple(self.value(element) for element in elements), at)
            case ast.Dict(keys=keys, values=values):
                return Literal(self.constant_dict(node, keys, values), at)
        raise self.refuse(node, f"{word(node)} cannot be translated", VALUES)

    def attribute(self, node: ast.Attribute, at: At) -> Expr:
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id not in self.scope.locals:
            found = self.scope.source.resolve(node)
            if isinstance(found, Enum):
                return Literal(found, at)
            raise self.refuse(
                node, f"`{ast.unparse(node)}` comes from outside of the workflow", VALUES
            )
        return Field(self.value(node.value), node.attr, self._member(node))

    def _member(self, node: ast.Attribute) -> At:
        """The place of the attribute's name, behind the dot."""
        at = self.scope.source.at(node)
        if node.end_lineno is None or node.end_col_offset is None:
            return at
        end = self.scope.source.place(node.end_lineno, node.end_col_offset)
        return At(end.file, end.line, max(end.column - len(node.attr), 0), end.source)

    def construct(self, node: ast.Call, at: At) -> Build:
        text = ast.unparse(node.func)
        if self.scope.is_ctx_step(node.func):
            raise self.refuse(node, "a step inside an expression: assign its result first", VALUES)
        found = self.scope.global_object(node.func)
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            what = "is not defined" if found is NOT_FOUND else "is not a pydantic model"
            raise self.refuse(node, f"a call of `{text}`, which {what}", VALUES)
        for argument in node.args:
            raise self.refuse(argument, f"`{text}` takes keywords only", f"`{text}(field=value)`")
        fields = []
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.refuse(
                    keyword.value, "`**` cannot be translated", f"`{text}(field=value)`"
                )
            fields.append((keyword.arg, self.value(keyword.value)))
        return Build(found, tuple(fields), at)

    def constant_dict(
        self, node: ast.Dict, keys: list[ast.expr | None], values: list[ast.expr]
    ) -> dict[str, Any]:
        found = {}
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise self.refuse(key or node, "a key that is not a string literal", VALUES)
            item = folded(self.value(value))
            if not isinstance(item, Literal):
                raise self.refuse(
                    value, "a computed value in a dict", "literals, or a model's fields"
                )
            found[key.value] = item.value
        return found
