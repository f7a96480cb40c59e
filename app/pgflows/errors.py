"""Every error that pgflows raises, as a tree; a class per decision that a caller can take.

PgflowsError
├── DefinitionError           a step or workflow is declared wrongly (file and line)
│   └── CompileError          a workflow's source cannot become a graph (file, line, column, source)
│       └── CompileErrors     several of them, from one look at the whole app
├── SetupError                the service cannot run here: the message says what to do
│   ├── MigrationError        the database and this code do not fit together
│   ├── ServerError           the embedded PostgreSQL cannot start
│   ├── LoginRefused          PostgreSQL lets nobody in as this role
│   └── DatabaseGone          the database that is named does not exist
├── RequestError              what the caller asked for cannot be done; nothing was changed
│   ├── WorkflowNotFound      ├── InvalidInput      ├── InputTooLarge      ├── IdempotencyConflict
│   ├── InstanceNotFound      ├── StepNotFound      ├── InvalidRequest     ├── Unauthorized
│   ├── Forbidden             └── InProgress
├── ServiceUnavailable        the service or its database is away; the same request may work later
│   └── OrchestratorAway
├── SignatureRefused          a push that this deployment did not sign
├── OutcomeRefused            what a step returned cannot be stored
└── StepError                 raised by a step to steer its retries
    ├── NonRetryableError     do not try again
    └── RetryAfter            try again after `seconds` seconds

Errors carry data as attributes; the HTTP status of each belongs to `http/problems.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PgflowsError(Exception):
    """Something went wrong in pgflows."""

    def __init__(self, message: str | None = None, **data: Any) -> None:
        super().__init__(message or self.__doc__)
        self.data: dict[str, Any] = data

    @property
    def message(self) -> str:
        return str(self.args[0])


class DefinitionError(PgflowsError):
    """A step or workflow is declared wrongly."""

    def __init__(self, message: str, *, file: str, line: int) -> None:
        super().__init__(f"{file}:{line}: {message}", file=file, line=line)
        self.file = file
        self.line = line
        self.reason = message


class CompileError(DefinitionError):
    """The source of a workflow cannot be translated exactly, so it is refused."""

    def __init__(
        self, message: str, *, file: str, line: int, column: int, source: str, allowed: str
    ) -> None:
        super().__init__(message, file=file, line=line)
        self.column = column
        self.source = source
        self.allowed = allowed
        pointer = " " * column + "^"
        self.args = (
            f"{file}:{line}:{column + 1}: {message}\n  {source}\n  {pointer}\n  allowed: {allowed}",
        )
        self.data |= {"column": column, "source": source, "allowed": allowed}


class CompileErrors(PgflowsError):
    """Some workflows of the app cannot be translated."""

    def __init__(self, errors: list[DefinitionError]) -> None:
        super().__init__("\n\n".join(e.message for e in errors))
        self.errors = errors


class SetupError(PgflowsError):
    """The service cannot run here."""


class MigrationError(SetupError):
    """The database and this version of pgflows do not fit together."""


class ServerError(SetupError):
    """The embedded PostgreSQL cannot start."""


class LoginRefused(SetupError):
    """PostgreSQL lets nobody in as this role."""


class DatabaseGone(SetupError):
    """The database does not exist."""


class RequestError(PgflowsError):
    """The request cannot be carried out; nothing was changed."""

    sqlstate: str | None = None


class WorkflowNotFound(RequestError):
    """There is no such workflow."""

    sqlstate = "PF010"


class InvalidInput(RequestError):
    """The input does not fit the workflow's input model."""

    sqlstate = "PF011"


class InputTooLarge(RequestError):
    """The input is larger than this deployment accepts."""

    sqlstate = "PF012"


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another input."""

    sqlstate = "PF013"


class InstanceNotFound(RequestError):
    """There is no such instance."""

    sqlstate = "PF014"


class InProgress(RequestError):
    """Another transaction, which is still open, holds what the request needs; try again."""

    sqlstate = "PF015"


class StepNotFound(RequestError):
    """There is no such step."""


class InvalidRequest(RequestError):
    """The request is malformed."""


class Unauthorized(RequestError):
    """The request needs a valid API key."""


class Forbidden(RequestError):
    """The request names a host, or comes from a web page, that the service does not answer to."""


class ServiceUnavailable(PgflowsError):
    """The service cannot be reached, or cannot reach its database."""


class OrchestratorAway(ServiceUnavailable):
    """The orchestrator takes no runs at the moment."""

    sqlstate = "PF016"


class SignatureRefused(PgflowsError):
    """The push request is not one that this deployment signed."""


class OutcomeRefused(PgflowsError):
    """PostgreSQL cannot hold what the step returned."""


class StepError(PgflowsError):
    """A step failed on purpose."""


class NonRetryableError(StepError):
    """The step failed and must not be tried again."""


class RetryAfter(StepError):
    """The step failed and should be tried again after `seconds`."""

    def __init__(self, seconds: float, message: str | None = None) -> None:
        super().__init__(message or f"try again after {seconds:g} s")
        self.seconds = seconds


BY_SQLSTATE: Mapping[str, type[PgflowsError]] = {
    cls.sqlstate: cls
    for cls in (
        WorkflowNotFound,
        InvalidInput,
        InputTooLarge,
        IdempotencyConflict,
        InstanceNotFound,
        InProgress,
        OrchestratorAway,
    )
    if cls.sqlstate
}
