"""The app: where steps and workflows register themselves, and how a deployment finds it.

`PGFLOWS_APP=steps:app` names a package and the `WorkflowApp` in it; loading it imports the
package's modules, whose decorators fill the app.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType, FunctionType, ModuleType
from typing import Any, Protocol, overload

from pydantic import BaseModel

from pgflows.annotations import Signature
from pgflows.config import Settings
from pgflows.definitions import (
    In,
    Out,
    RetryConfig,
    Step,
    StepContext,
    Workflow,
    WorkflowContext,
    call_timeout,
)
from pgflows.errors import DefinitionError, PgflowsError, SetupError

__all__ = [
    "RetryConfig",
    "Step",
    "StepContext",
    "Workflow",
    "WorkflowApp",
    "WorkflowContext",
    "call_timeout",
    "load_app",
]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
LONGEST_TIMEOUT = 7 * 24 * 3600.0


class StepDecorator(Protocol):
    """What `@app.step(…)` is: async functions first, as a coroutine is never a model."""

    @overload
    def __call__(self, fn: Callable[[StepContext, In], Awaitable[Out]], /) -> Step[In, Out]: ...
    @overload
    def __call__(self, fn: Callable[[StepContext, In], Out], /) -> Step[In, Out]: ...


class WorkflowDecorator(Protocol):
    """What `@app.workflow(…)` is."""

    def __call__(
        self, fn: Callable[[WorkflowContext, In], Awaitable[Out]], /
    ) -> Workflow[In, Out]: ...


class WorkflowApp:
    """The steps and workflows of one deployment, and its settings (`PGFLOWS_*` by default)."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.steps: dict[str, Step[Any, Any]] = {}
        self.workflows: dict[str, Workflow[Any, Any]] = {}

    @overload
    def step(self, fn: Callable[[StepContext, In], Awaitable[Out]], /) -> Step[In, Out]: ...
    @overload
    def step(self, fn: Callable[[StepContext, In], Out], /) -> Step[In, Out]: ...
    @overload
    def step(
        self,
        /,
        *,
        name: str | None = None,
        retry: RetryConfig | None = None,
        timeout: float | None = None,
    ) -> StepDecorator: ...
    def step(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        retry: RetryConfig | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Register a function as a step: `@app.step`, or with options `@app.step(timeout=5)`.

        `timeout` is in seconds, for one attempt. A function that is not async runs in a thread.
        """

        def register(fn: Any) -> Step[Any, Any]:
            function, signature = _read("step", fn, inspect.currentframe())
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise signature.error("is a generator; a step returns its result")
            if timeout is not None and not 0 < timeout <= LONGEST_TIMEOUT:
                raise signature.error(f"timeout must be in (0, {LONGEST_TIMEOUT:g}] seconds")
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

        return register if fn is None else register(fn)

    @overload
    def workflow(
        self, fn: Callable[[WorkflowContext, In], Awaitable[Out]], /
    ) -> Workflow[In, Out]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        version: str = "1",
        step_defaults: RetryConfig | None = None,
    ) -> WorkflowDecorator: ...
    def workflow(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        version: str = "1",
        step_defaults: RetryConfig | None = None,
    ) -> Any:
        """Register an async function as a workflow.

        `step_defaults` is the retry policy of steps that have none of their own.
        """

        def register(fn: Any) -> Workflow[Any, Any]:
            function, signature = _read("workflow", fn, inspect.currentframe())
            if not inspect.iscoroutinefunction(function):
                raise signature.error("must be an `async def` that returns its result")
            if not isinstance(version, str) or not VERSION.fullmatch(version):
                raise signature.error(
                    f"version {version!r} must be a string of at most 64 letters, digits, _ . + -"
                )
            _check_retry(signature, "step_defaults", step_defaults)
            workflow: Workflow[Any, Any] = Workflow(
                name=_name(signature, name, self.workflows),
                version=version,
                fn=function,
                signature=signature,
                step_defaults=step_defaults,
            )
            self.workflows[workflow.name] = workflow
            return workflow

        return register if fn is None else register(fn)

    def step_timeout(self, step: Step[Any, Any]) -> float:
        """Seconds that one attempt of the step may take."""
        return step.timeout if step.timeout is not None else self.settings.step_timeout

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


def load_app(path: str) -> WorkflowApp:
    """Import `module:attribute` and all modules below it; the attribute is the `WorkflowApp`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise SetupError(f"PGFLOWS_APP must look like module:attribute, not {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    for name in _modules_below(module):
        _import(name)
    app: Any = module
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if not isinstance(app, WorkflowApp):
        raise SetupError(f"{path}: {module_name} has no WorkflowApp called {attribute!r}")
    return app


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SetupError(
                f"there is no module {name!r} in {os.getcwd()} or on the import path; "
                "set PGFLOWS_APP=module:attribute, or run this where your steps are"
            ) from error
        raise SetupError(f"{name} cannot be imported: {error}") from error
    except (ImportError, SyntaxError) as error:
        raise SetupError(f"{name} cannot be imported: {error}") from error
    except PgflowsError:
        raise
    except Exception as error:  # whatever the module's own code raises
        frames = traceback.extract_tb(error.__traceback__)
        here = [f for f in frames if f.filename.startswith(os.getcwd())]
        ours = [f for f in here if "site-packages" not in f.filename] or frames
        raise SetupError(
            f"{name} cannot be imported: {type(error).__name__}: {error} "
            f"({ours[-1].filename}, line {ours[-1].lineno})"
        ) from error


def _modules_below(module: ModuleType) -> list[str]:
    names = []
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        if found.name.rpartition(".")[2] == "__main__":
            continue
        names.append(found.name)
        if found.ispkg:
            names.extend(_modules_below(_import(found.name)))
    return names


def _read(kind: str, fn: Any, here: FrameType | None) -> tuple[FunctionType, Signature]:
    """The function and its signature; `here` is the frame of the decorator that was given it."""
    caller = here.f_back if here else None
    if isinstance(fn, FunctionType):
        return fn, Signature(fn, kind, caller)
    while caller and caller.f_code.co_filename == __file__:
        caller = caller.f_back
    raise DefinitionError(
        f"a {kind} is a function, not {fn!r}",
        file=caller.f_code.co_filename if caller else "?",
        line=caller.f_lineno if caller else 0,
    )


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
