"""Errors on their way out: which class has which HTTP status, all as application/problem+json.

`ProblemRoute` does the translation inside each of our routes, so that they answer alike on an
application of the user's own, whose error handlers are none of our business. `install_handlers`
adds the rest for an application that is all ours: unknown paths, wrong methods.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

import asyncpg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from pgflows.database.faults import is_away
from pgflows.errors import (
    Forbidden,
    IdempotencyConflict,
    InProgress,
    InputTooLarge,
    InstanceNotFound,
    InvalidInput,
    InvalidRequest,
    PgflowsError,
    RequestError,
    ServiceUnavailable,
    SignatureRefused,
    StepNotFound,
    Unauthorized,
    WorkflowNotFound,
)
from pgflows.messages import PROBLEM, Problem, problem_type

logger = logging.getLogger("pgflows.http")

MAX_BODY = 16 * 1024 * 1024
"""Bytes of a control request's body; an input's own, smaller limit is a setting in the database."""

RETRY_AFTER_SECONDS = "1"

STATUS: Mapping[type[PgflowsError], int] = {
    WorkflowNotFound: 404,
    InstanceNotFound: 404,
    StepNotFound: 404,
    InvalidInput: 422,
    InvalidRequest: 422,
    RequestError: 422,
    InputTooLarge: 413,
    IdempotencyConflict: 409,
    InProgress: 409,
    Unauthorized: 401,
    Forbidden: 403,
    SignatureRefused: 401,
    ServiceUnavailable: 503,
}

_SCHEMA = {k: v for k, v in Problem.model_json_schema().items() if k != "examples"}
_HIDDEN = {"traceback", "file", "line"}
_EXPECTED = {
    "instance": "an instance_id (a uuid) or a df_id (eight hex digits) is expected",
    "idempotency-key": "1 to 255 printable ASCII characters are expected",
}
"""What the patterns of our parameters mean."""


class ProblemResponse(Response):
    """One problem; ASCII only, because a message may quote what the caller sent."""

    media_type = "application/problem+json"

    def __init__(
        self,
        request: Request,
        slug: str,
        status: int,
        title: str,
        detail: str,
        *,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        document = {k: v for k, v in (data or {}).items() if k not in _HIDDEN} | {
            "type": slug if slug.startswith(PROBLEM) else PROBLEM + slug,
            "title": title,
            "status": status,
            "detail": detail,
            "instance": request.url.path,
        }
        content = json.dumps(document, default=str).encode("ascii")
        super().__init__(content, status, headers=dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that can answer with these problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": _SCHEMA}},
        }
        for status in statuses
    }


def problem_for(request: Request, error: Exception) -> Response:
    """The response that an error becomes; the last resort is a 500 that tells nothing."""
    cause = error.__cause__
    if isinstance(error, HTTPException) and isinstance(cause, PgflowsError):
        error = cause  # raised while the body was read, wrapped by FastAPI
    match error:
        case PgflowsError():
            return _ours(request, error)
        case RequestValidationError():
            return _invalid(request, error)
        case HTTPException():
            return _framework(request, error)
        case asyncpg.StatementTooComplexError() | asyncpg.ProgramLimitExceededError():
            detail = "The request is larger or nested deeper than the database takes."
            return _ours(request, InvalidRequest(detail))
        case ClientDisconnect():
            return Response(status_code=400)
        case _ if is_away(error):
            return _database_away(request, error)
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _internal_error(request)


def _internal_error(request: Request) -> Response:
    detail = "The service's log says more."
    return ProblemResponse(request, "internal-error", 500, "Something went wrong here.", detail)


def _ours(request: Request, error: PgflowsError) -> Response:
    status = next((STATUS[c] for c in type(error).__mro__ if c in STATUS), 500)
    if status == 500:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    headers: dict[str, str] = {}
    match error:
        case Unauthorized():
            headers["WWW-Authenticate"] = "Bearer"
        case InProgress() | ServiceUnavailable():
            headers["Retry-After"] = RETRY_AFTER_SECONDS
    return ProblemResponse(
        request,
        problem_type(type(error)),
        status,
        title=(type(error).__doc__ or "").strip(),
        detail=error.message,
        data=error.data,
        headers=headers,
    )


def _invalid(request: Request, error: RequestValidationError) -> Response:
    faults = [
        {"loc": list(e["loc"]), "message": _message(e), "code": e["type"]} for e in error.errors()
    ]
    first = faults[0]
    if first["code"] == "model_attributes_type" and not _says_json(request):
        detail = "The body is JSON: send the header Content-Type: application/json with it."
        phrase = HTTPStatus.UNSUPPORTED_MEDIA_TYPE.phrase
        return ProblemResponse(request, "unsupported-media-type", 415, phrase, detail)
    detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['message']}"
    title = (InvalidRequest.__doc__ or "").strip()
    slug = problem_type(InvalidRequest)
    return ProblemResponse(request, slug, 422, title, detail, data={"errors": faults})


def _message(fault: Mapping[str, Any]) -> str:
    """A validation error in words that tell what to send."""
    match fault["type"]:
        case "json_invalid":
            return f"not JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
        case "string_pattern_mismatch" if fault["loc"][-1] in _EXPECTED:
            return _EXPECTED[fault["loc"][-1]]
    return str(fault["msg"]).removeprefix("Value error, ")


def _says_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _framework(request: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    slug = phrase.lower().replace(" ", "-")
    return ProblemResponse(
        request, slug, error.status_code, phrase, str(error.detail), headers=error.headers
    )


def _database_away(request: Request, error: Exception) -> Response:
    logger.warning(
        "%s %s: the database is away: %s: %s",
        request.method, request.url.path, type(error).__name__, error,
    )  # fmt: skip
    title = "The database cannot be reached."
    detail = "Nothing is known to have been changed; try again."
    headers = {"Retry-After": RETRY_AFTER_SECONDS}
    return ProblemResponse(request, "database-unavailable", 503, title, detail, headers=headers)


def limited(receive: Receive, limit: int) -> Receive:
    """A receive channel that raises InputTooLarge after `limit` bytes."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise InputTooLarge(f"The body is larger than {limit} bytes.", limit=limit)
        return message

    return counted


class ProblemRoute(APIRoute):
    """A route whose errors leave it as problems and whose body is limited."""

    async def admit(self, request: Request) -> None:
        """Refuse a request before its body is read, by raising."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                await self.admit(request)
                bounded = Request(request.scope, limited(request.receive, MAX_BODY))
                return await handle(bounded)
            except Exception as e:
                return problem_for(request, e)

        return guarded


def install_handlers(app: FastAPI) -> None:
    """Let an application that is ours alone answer every error as a problem."""
    for kind in (HTTPException, RequestValidationError, PgflowsError):
        app.add_exception_handler(kind, _handle)
    app.add_exception_handler(Exception, _handle_unexpected)


async def _handle(request: Request, error: Exception) -> Response:
    return problem_for(request, error)


async def _handle_unexpected(request: Request, _error: Exception) -> Response:
    """The framework raises the error again after this, and the server logs it."""
    return _internal_error(request)
