"""What an app has registered: its steps and its workflows, by name."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel

from pgflows.annotations import Signature
from pgflows.definitions import RetryConfig, Step, Workflow
from pgflows.errors import DefinitionError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
LONGEST_TIMEOUT_SECONDS = 7 * 24 * 3600.0


class Registry:
    """Steps and workflows; a declaration that is wrong raises DefinitionError."""

    def __init__(self) -> None:
        self.steps: dict[str, Step[Any, Any]] = {}
        self.workflows: dict[str, Workflow[Any, Any]] = {}

    def add_step(
        self,
        signature: Signature,
        *,
        name: str | None = None,
        retry: RetryConfig | None = None,
        timeout: float | None = None,
    ) -> Step[Any, Any]:
        function = signature.function
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise signature.error("is a generator; a step returns its result")
        if timeout is not None and not 0 < timeout <= LONGEST_TIMEOUT_SECONDS:
            raise signature.error(f"timeout must be in (0, {LONGEST_TIMEOUT_SECONDS:g}] seconds")
        _check_retry(signature, "retry", retry)
        step: Step[Any, Any] = Step(
            name=_name(signature, name, self.steps),
            fn=function,
            signature=signature,
            retry=retry,
            timeout=timeout,
            is_async=inspect.iscoroutinefunction(function),
        )
        self.steps[step.name] = step
        return step

    def add_workflow(
        self,
        signature: Signature,
        *,
        name: str | None = None,
        version: str = "1",
        step_defaults: RetryConfig | None = None,
    ) -> Workflow[Any, Any]:
        if not inspect.iscoroutinefunction(signature.function):
            raise signature.error("must be an `async def` that returns its result")
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            raise signature.error(
                f"version {version!r} must be a string of at most 64 letters, digits, _ . + -"
            )
        _check_retry(signature, "step_defaults", step_defaults)
        workflow: Workflow[Any, Any] = Workflow(
            name=_name(signature, name, self.workflows),
            version=version,
            fn=signature.function,
            signature=signature,
            step_defaults=step_defaults,
        )
        self.workflows[workflow.name] = workflow
        return workflow

    def check_definitions(self) -> list[DefinitionError]:
        """What is wrong with the declarations that could not be resolved when they were made."""
        errors: list[DefinitionError] = []
        definitions: list[Step[Any, Any] | Workflow[Any, Any]] = [
            *self.steps.values(),
            *self.workflows.values(),
        ]
        for definition in definitions:
            try:
                models: tuple[type[BaseModel], ...] = (
                    definition.input_model,
                    definition.output_model,
                )
                for model in models:
                    model.model_rebuild()
            except DefinitionError as error:
                errors.append(error)
            except NameError as error:
                errors.append(definition.signature.error(f"a field of its models: {error}"))
        return errors


def _name(signature: Signature, given: str | None, taken: dict[str, Any]) -> str:
    name = signature.name if given is None else given
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise signature.error(
            f"the name {name!r} must be 1 to 63 letters, digits and _, and not begin with a digit"
        )
    if name in taken:
        first = taken[name]
        raise signature.error(
            f"the name {name!r} is taken by the {signature.kind} at {first.file}:{first.line}"
        )
    return name


def _check_retry(signature: Signature, option: str, retry: RetryConfig | None) -> None:
    if retry is not None and not isinstance(retry, RetryConfig):
        raise signature.error(f"{option} must be a RetryConfig, not {retry!r}")
