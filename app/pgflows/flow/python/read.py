"""Reads the source of a workflow function into a program, exactly, or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgflows.definitions import Step, Workflow
from pgflows.flow.program import Program
from pgflows.flow.python.scope import Scope
from pgflows.flow.python.source import Source
from pgflows.flow.python.statements import Statements


def read(workflow: Workflow[Any, Any], steps: Mapping[str, Step[Any, Any]]) -> Program:
    """The program of the workflow; raises CompileError for what cannot be translated."""
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
    statements = Statements(Scope(workflow, source, ctx, input), steps)
    return Program(workflow, tuple(statements.block(tree)))
