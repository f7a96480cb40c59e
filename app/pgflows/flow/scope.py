"""The values of a workflow: Python expressions read into the tree, in one function's scope."""

from __future__ import annotations

import ast
from enum import Enum
from typing import Any

from pydantic import BaseModel

from pgflows.definitions import Workflow
from pgflows.errors import CompileError
from pgflows.flow.nodes import At, Attr, Construct, Expr, Input, Items, Literal, Var
from pgflows.flow.source import NOT_FOUND, Source
from pgflows.flow.words import VALUES, word


class Scope:
    """What the names mean at one point of a function; `bound` says what each local one holds."""

    def __init__(self, workflow: Workflow[Any, Any], source: Source, ctx: str, input: str) -> None:
        self.workflow = workflow
        self.source = source
        self.ctx = ctx
        self.bound: dict[str, type[Input] | type[Var]] = {input: Input}
        code = source.fn.__code__
        self.locals = {*code.co_varnames, *code.co_cellvars}

    def refuse(self, node: ast.expr | ast.stmt, message: str, allowed: str) -> CompileError:
        message = f"workflow {self.workflow.name}: {message}"
        return self.source.at(node).error(message, allowed=allowed)

    def is_ctx_step(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Attribute)
            and node.attr == "step"
            and isinstance(node.value, ast.Name)
            and node.value.id == self.ctx
        )

    def global_object(self, node: ast.expr) -> Any:
        """What the path stands for outside of the function; a local name hides a global one."""
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name):
            return NOT_FOUND
        if root.id in self.locals:
            raise self.refuse(
                node, f"`{root.id}` is a variable of this function", "a name from outside"
            )
        return self.source.resolve(node)

    def value(self, node: ast.expr) -> Expr:
        at = self.source.at(node)
        match node:
            case ast.Name(id=name) if name == self.ctx:
                raise self.refuse(node, f"`{name}` is the context, not a value", VALUES)
            case ast.Name(id=name) if name in self.bound:
                return Input(at) if self.bound[name] is Input else Var(name, at)
            case ast.Name(id=name) if name in self.locals:
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
            case ast.Constant() | ast.UnaryOp():
                return Literal(self.constant(node), at)
            case ast.List(elts=elements):
                items = tuple(self.value(element) for element in elements)
                if all(isinstance(item, Literal) for item in items):
                    return Literal([i.value for i in items if isinstance(i, Literal)], at)
                return Items(items, at)
            case ast.Dict(keys=keys, values=values):
                return Literal(self.constant_dict(node, keys, values), at)
        raise self.refuse(node, f"{word(node)} cannot be translated", VALUES)

    def attribute(self, node: ast.Attribute, at: At) -> Expr:
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id not in self.locals:
            found = self.source.resolve(node)
            if isinstance(found, Enum):
                return Literal(found, at)
            raise self.refuse(
                node, f"`{ast.unparse(node)}` comes from outside of the workflow", VALUES
            )
        return Attr(self.value(node.value), node.attr, self._member(node))

    def _member(self, node: ast.Attribute) -> At:
        """The place of the attribute's name, behind the dot."""
        at = self.source.at(node)
        if node.end_lineno is None or node.end_col_offset is None:
            return at
        end = self.source.place(node.end_lineno, node.end_col_offset)
        return At(end.file, end.line, max(end.column - len(node.attr), 0), end.source)

    def construct(self, node: ast.Call, at: At) -> Construct:
        text = ast.unparse(node.func)
        if self.is_ctx_step(node.func):
            raise self.refuse(node, "a step inside an expression: assign its result first", VALUES)
        found = self.global_object(node.func)
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
        return Construct(found, tuple(fields), at)

    def constant(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                if not isinstance(value, bool):
                    return -value
        raise self.refuse(node, f"{word(node)} cannot be translated", VALUES)

    def constant_dict(
        self, node: ast.Dict, keys: list[ast.expr | None], values: list[ast.expr]
    ) -> dict[str, Any]:
        found = {}
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise self.refuse(key or node, "a key that is not a string literal", VALUES)
            item = self.value(value)
            if not isinstance(item, Literal):
                raise self.refuse(
                    value, "a computed value in a dict", "literals, or a model's fields"
                )
            found[key.value] = item.value
        return found
