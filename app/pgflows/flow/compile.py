"""From registered workflows to checked programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgflows.definitions import Step, Workflow
from pgflows.errors import CompileErrors, DefinitionError
from pgflows.flow.program import Program
from pgflows.flow.python.read import read
from pgflows.flow.typing.check import check
from pgflows.registry import Registry


def compile_app(registry: Registry) -> dict[str, Program]:
    """Every registered workflow as a checked program; what is wrong is reported for all at once."""
    errors = registry.check_definitions()
    programs = {}
    broken = {(error.file, error.line) for error in errors}
    for workflow in registry.workflows.values():
        try:
            programs[workflow.name] = compile_workflow(workflow, registry.steps)
        except DefinitionError as error:
            if (error.file, error.line) not in broken:
                errors.append(error)
    if errors:
        raise CompileErrors(errors)
    return programs


def compile_workflow(workflow: Workflow[Any, Any], steps: Mapping[str, Step[Any, Any]]) -> Program:
    """The workflow as a checked program; raises CompileError for what cannot be translated."""
    return check(read(workflow, steps))
