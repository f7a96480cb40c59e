"""Reads the statements of a workflow function.

What is accepted so far is a straight line: steps one after another, and a result at the end.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pgflows.definitions import Step
from pgflows.flow.operators import STATEMENTS as FORMS
from pgflows.flow.operators import accepted, word
from pgflows.flow.program import RETURNED, Name, Return, Statement, StepCall
from pgflows.flow.python.expressions import Expressions
from pgflows.flow.python.scope import Scope
from pgflows.flow.python.source import NOT_FOUND

STATEMENTS = accepted(FORMS, "and")
MOST_STEPS = 2000


class Statements:
    """Reads the statements of one function, in one pass."""

    def __init__(self, scope: Scope, steps: Mapping[str, Step[Any, Any]]) -> None:
        self.scope = scope
        self.value = Expressions(scope).value
        self.refuse = scope.refuse
        self.at = scope.source.at
        self.steps = steps
        self.counts: Counter[str] = Counter()

    def block(self, tree: ast.AsyncFunctionDef) -> list[Statement]:
        documented = ast.get_docstring(tree, clean=False) is not None
        statements: list[Statement] = []
        for node in tree.body[1 if documented else 0 :]:
            if statements and isinstance(statements[-1], Return):
                raise self.refuse(node, "code after `return` is never reached", STATEMENTS)
            if len(statements) > MOST_STEPS:
                most = f"at most {MOST_STEPS} steps in a workflow"
                raise self.refuse(node, "too many steps", most)
            statements += self.statement(node)
        if not statements or not isinstance(statements[-1], Return):
            raise self.refuse(
                tree.body[-1], "it ends without `return`, but a workflow has a result", STATEMENTS
            )
        return statements

    def statement(self, node: ast.stmt) -> list[Statement]:
        at = self.at(node)
        if isinstance(node, ast.Return):
            if node.value is None:
                raise self.refuse(node, "`return` needs the workflow's result", STATEMENTS)
            if isinstance(node.value, ast.Await):
                call = self.call(node.value, RETURNED)
                return [call, Return(Name(RETURNED, call.at), at)]
            return [Return(self.value(node.value), at)]
        if isinstance(node, ast.Expr):
            return [self.call(node.value, None)]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return [self.assignment(node)]
        raise self.refuse(node, f"{word(node)} cannot be translated", STATEMENTS)

    def assignment(self, node: ast.Assign | ast.AnnAssign) -> StepCall:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None:
            raise self.refuse(node, "a declaration without a value", STATEMENTS)
        if len(targets) > 1 or not isinstance(targets[0], ast.Name):
            raise self.refuse(node, "a result goes into one plain name", STATEMENTS)
        name = targets[0].id
        if name == self.scope.ctx:
            raise self.refuse(targets[0], f"`{name}` must stay the workflow's context", STATEMENTS)
        call = self.call(node.value, name)
        self.scope.bound[name] = name
        return call

    def call(self, node: ast.expr, var: str | None) -> StepCall:
        """`await ctx.step(step, value)`."""
        if isinstance(node, ast.Call) and self.scope.is_ctx_step(node.func):
            raise self.refuse(
                node, f"`{self.scope.ctx}.step(…)` needs `await` before it", STATEMENTS
            )
        if not isinstance(node, ast.Await):
            raise self.refuse(node, f"{word(node)} is not a step", STATEMENTS)
        call = node.value
        if not isinstance(call, ast.Call) or not self.scope.is_ctx_step(call.func):
            raise self.refuse(call, f"only `{self.scope.ctx}.step(…)` can be awaited", STATEMENTS)
        form = f"`{self.scope.ctx}.step(step, value)`, two values by position"
        if len(call.args) != 2 or call.keywords:
            raise self.refuse(call, f"`{self.scope.ctx}.step` takes a step and its input", form)
        for argument in call.args:
            if isinstance(argument, ast.Starred):
                raise self.refuse(argument, "`*` cannot be translated", form)
        step = self.step(call.args[0])
        value = self.value(call.args[1])
        self.counts[step.name] += 1
        key = f"{step.name}#{self.counts[step.name]}"
        return StepCall(key, step, var, value, self.at(call))

    def step(self, node: ast.expr) -> Step[Any, Any]:
        text = ast.unparse(node)
        found = self.scope.global_object(node)
        if not isinstance(found, Step):
            what = "is not defined" if found is NOT_FOUND else "is not a step"
            raise self.refuse(node, f"`{text}` {what}", "the name of a function under @app.step")
        if self.steps.get(found.name) is not found:
            raise self.refuse(node, f"`{text}` is a step of another app", "steps of the same app")
        return found
