"""The annotations of a step or workflow function, resolved to pydantic models.

A name may be defined later than the function, or inside another function; so what cannot be
resolved at decoration is tried again when the model is asked for, in the scopes around it.
"""

from __future__ import annotations

import inspect
import typing
from functools import cached_property
from types import FrameType, FunctionType, SimpleNamespace
from typing import Any

from pydantic import BaseModel

from pgflows.errors import DefinitionError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """`(ctx, input: Model) -> Model` of one function, checked as far as it can be resolved now."""

    def __init__(self, fn: FunctionType, kind: str, frame: FrameType | None) -> None:
        self.kind = kind
        self.name = fn.__name__
        self.file = fn.__code__.co_filename
        self.line = fn.__code__.co_firstlineno
        self.description = inspect.getdoc(fn)
        self._globals = fn.__globals__
        self.function = fn
        self._scopes = _enclosing_scopes(fn, frame)
        self._input = self._check_parameters(fn)
        self._resolve_early()

    @cached_property
    def input_model(self) -> type[BaseModel]:
        return self._model(self._input, f"the input {self._input!r}")

    @cached_property
    def output_model(self) -> type[BaseModel]:
        return self._model("return", "the result")

    def error(self, message: str) -> DefinitionError:
        return DefinitionError(
            f"{self.kind} {self.name}: {message}", file=self.file, line=self.line
        )

    def _check_parameters(self, fn: FunctionType) -> str:
        shape = f"write it as `{self.name}(ctx, input: Model) -> Model`"
        parameters = list(
            inspect.Signature.from_callable(fn, follow_wrapped=False).parameters.values()
        )
        for parameter in parameters:
            if parameter.kind not in POSITIONAL:
                raise self.error(f"{str(parameter)!r} is not a plain parameter; {shape}")
            if parameter.default is not inspect.Parameter.empty:
                raise self.error(f"{parameter.name!r} must not have a default; {shape}")
        if len(parameters) != 2:
            raise self.error(f"takes {len(parameters)} parameters instead of two; {shape}")
        return parameters[1].name

    def _resolve_early(self) -> None:
        """Report now what is wrong already; keep the scopes only while a name is missing."""
        try:
            annotations = self.function.__annotations__
        except NameError:  # annotations are evaluated lazily and a model is not there yet
            return
        for key, what in ((self._input, f"the input {self._input!r}"), ("return", "the result")):
            if key not in annotations:
                raise self.error(f"{what} needs an annotation: a pydantic model")
        try:
            self.__dict__ |= {"input_model": self.input_model, "output_model": self.output_model}
        except UnresolvedName:
            return
        self._scopes = ()

    def _model(self, key: str, what: str) -> type[BaseModel]:
        scope: dict[str, Any] = {}
        for frame in reversed(self._scopes):
            scope |= frame.f_locals
        try:
            annotation = self.function.__annotations__[key]
            hints = typing.get_type_hints(
                SimpleNamespace(__annotations__={key: annotation}), self._globals, scope
            )
        except NameError as error:
            raise UnresolvedName(
                f"{self.kind} {self.name}: the annotation of {what} names {error.name!r}, "
                "which is not defined",
                file=self.file,
                line=self.line,
            ) from error
        except KeyError as error:
            raise self.error(f"{what} needs an annotation: a pydantic model") from error
        model = hints[key]
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or model is BaseModel:
            raise self.error(f"{what} must be a pydantic model, not {_show(model)}")
        return model


class UnresolvedName(DefinitionError):
    """An annotation names something that is not defined, or not yet."""


def _enclosing_scopes(fn: FunctionType, frame: FrameType | None) -> tuple[FrameType, ...]:
    """The frames, innermost first, of the functions and classes that `fn` is defined in."""
    scopes = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename == fn.__code__.co_filename and fn.__qualname__.startswith(
            f"{code.co_qualname}."
        ):
            scopes.append(frame)
        frame = frame.f_back
    return tuple(scopes)


def _show(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
