"""What the names in a workflow function mean at one point of it."""

from __future__ import annotations

import ast
from typing import Any

from pgflows.definitions import Workflow
from pgflows.errors import CompileError
from pgflows.flow.program import INPUT
from pgflows.flow.python.source import NOT_FOUND, Source


class Scope:
    """`bound` says which variable of the run each local name holds."""

    def __init__(self, workflow: Workflow[Any, Any], source: Source, ctx: str, input: str) -> None:
        self.workflow = workflow
        self.source = source
        self.ctx = ctx
        self.bound = {input: INPUT}
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
