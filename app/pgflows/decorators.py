"""The decorators that register steps and workflows: `@app.step`, and `@app.step(timeout=5)`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import FrameType, FunctionType
from typing import Any, overload

from pgflows.annotations import Signature
from pgflows.context import In, Out, StepContext, WorkflowContext
from pgflows.definitions import RetryConfig, Step, Workflow
from pgflows.errors import DefinitionError
from pgflows.registry import Registry


class StepDecorator:
    """Registers a function as a step; called with options, it is a decorator that has these.

    `timeout` is in seconds, for one attempt. A function that is not async runs in a thread.
    """

    def __init__(self, registry: Registry, **options: Any) -> None:
        self._registry = registry
        self._options = options

    # async functions first, as a coroutine is never a model
    @overload
    def __call__(self, fn: Callable[[StepContext, In], Awaitable[Out]], /) -> Step[In, Out]: ...
    @overload
    def __call__(self, fn: Callable[[StepContext, In], Out], /) -> Step[In, Out]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        retry: RetryConfig | None = None,
        timeout: float | None = None,
    ) -> StepDecorator: ...
    def __call__(self, fn: Any = None, /, **options: Any) -> Any:
        if fn is None:
            return StepDecorator(self._registry, **options)
        signature = _signature("step", fn, inspect.currentframe())
        return self._registry.add_step(signature, **self._options, **options)


class WorkflowDecorator:
    """Registers an async function as a workflow; called with options, it has these.

    `step_defaults` is the retry policy of steps that have none of their own.
    """

    def __init__(self, registry: Registry, **options: Any) -> None:
        self._registry = registry
        self._options = options

    @overload
    def __call__(
        self, fn: Callable[[WorkflowContext, In], Awaitable[Out]], /
    ) -> Workflow[In, Out]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        version: str = "1",
        step_defaults: RetryConfig | None = None,
    ) -> WorkflowDecorator: ...
    def __call__(self, fn: Any = None, /, **options: Any) -> Any:
        if fn is None:
            return WorkflowDecorator(self._registry, **options)
        signature = _signature("workflow", fn, inspect.currentframe())
        return self._registry.add_workflow(signature, **self._options, **options)


def _signature(kind: str, fn: Any, here: FrameType | None) -> Signature:
    """The signature of a function; `here` is the frame of the decorator that was given it."""
    caller = here.f_back if here else None
    if isinstance(fn, FunctionType):
        return Signature(fn, kind, caller)
    raise DefinitionError(
        f"a {kind} is a function, not {fn!r}",
        file=caller.f_code.co_filename if caller else "?",
        line=caller.f_lineno if caller else 0,
    )
