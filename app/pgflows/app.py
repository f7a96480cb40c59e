"""The app: what a deployment declares its steps and workflows on."""

from __future__ import annotations

from typing import Any

from pgflows.config import Settings
from pgflows.decorators import StepDecorator, WorkflowDecorator
from pgflows.definitions import Step, Workflow
from pgflows.errors import DefinitionError
from pgflows.registry import Registry


class WorkflowApp:
    """The steps and workflows of one deployment, and its settings (`PGFLOWS_*` by default)."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.registry = Registry()

    @property
    def step(self) -> StepDecorator:
        """Registers a step: `@app.step`, or with options `@app.step(timeout=5)`."""
        return StepDecorator(self.registry)

    @property
    def workflow(self) -> WorkflowDecorator:
        """Registers a workflow: `@app.workflow`, or with options `@app.workflow(version="2")`."""
        return WorkflowDecorator(self.registry)

    @property
    def steps(self) -> dict[str, Step[Any, Any]]:
        """The registered steps by name."""
        return self.registry.steps

    @property
    def workflows(self) -> dict[str, Workflow[Any, Any]]:
        """The registered workflows by name."""
        return self.registry.workflows

    def step_timeout(self, step: Step[Any, Any]) -> float:
        """Seconds that one attempt of the step may take."""
        return step.timeout if step.timeout is not None else self.settings.step_timeout

    def check_definitions(self) -> list[DefinitionError]:
        """What is wrong with the declarations that could not be resolved when they were made."""
        return self.registry.check_definitions()
