"""The compiler: reads a workflow function's source into a flow, exactly, or says what is wrong.

What it accepts so far is a straight line: steps one after another, and a result at the end.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pgflows.definitions import Step, Workflow
from pgflows.errors import CompileErrors, DefinitionError
from pgflows.flow.check import check
from pgflows.flow.nodes import RETURNED, Flow, Return, Statement, StepCall, Var
from pgflows.flow.scope import Scope
from pgflows.flow.source import NOT_FOUND, Source
from pgflows.flow.words import STATEMENTS, word
from pgflows.registry import WorkflowApp

MOST_STEPS = 2000


def compile_app(app: WorkflowApp) -> dict[str, Flow]:
    """Every workflow of the app as a flow; what is wrong is reported for all of them at once."""
    errors = app.check_definitions()
    flows = {}
    broken = {(error.file, error.line) for error in errors}
    for workflow in app.workflows.values():
        try:
            flows[workflow.name] = compile_workflow(workflow, app.steps)
        except DefinitionError as error:
            if (error.file, error.line) not in broken:
                errors.append(error)
    if errors:
        raise CompileErrors(errors)
    return flows


def compile_workflow(workflow: Workflow[Any, Any], steps: Mapping[str, Step[Any, Any]]) -> Flow:
    """The workflow as a checked flow; raises CompileError for what cannot be translated."""
    source = Source(workflow.fn)  # type: ignore[arg-type]  # the registry takes nothing else
    tree = source.tree()
    if hasattr(workflow.fn, "__wrapped__") or tree is None:
        wrapped = "the function is wrapped by another decorator"
        unread = "its source cannot be read, or is no longer what was imported"
        raise source.start().error(
            f"workflow {workflow.name}: {unread if tree is None else wrapped}",
            allowed="a function in a file, with @app.workflow as its only decorator",
        )
    ctx, input = (a.arg for a in (*tree.args.posonlyargs, *tree.args.args))
    reader = _Reader(Scope(workflow, source, ctx, input), steps)
    return check(Flow(workflow, tuple(reader.body(tree))))


class _Reader:
    """One pass over the statements of one function."""

    def __init__(self, scope: Scope, steps: Mapping[str, Step[Any, Any]]) -> None:
        self.scope = scope
        self.refuse = scope.refuse
        self.at = scope.source.at
        self.steps = steps
        self.counts: Counter[str] = Counter()

    def body(self, tree: ast.AsyncFunctionDef) -> list[Statement]:
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
                return [call, Return(Var(RETURNED, call.at), at)]
            return [Return(self.scope.value(node.value), at)]
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
        self.scope.bound[name] = Var
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
        value = self.scope.value(call.args[1])
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
