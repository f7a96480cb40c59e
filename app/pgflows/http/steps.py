"""The push route: where engines call the steps, `POST /steps/{name}`.

The raw body is read, up to a limit, and its signature is checked before a byte of it is parsed.
A request that is not exactly what PostgreSQL signed is refused with 401 and a log line. The one
step path answers the others, and this module says how an outcome travels:

status  200 output · 409 still running at the deadline · 410 cancelled · 413 output too large ·
422 input does not fit · 424 the step failed · 429 busy, or the next attempt is due later
(Retry-After) · 401 no such call is open

OpenAPI shows an operation for each registered step with its models; FastAPI itself parses
nothing here. Most requests of a service are pushes, so `PushMiddleware` answers them before
FastAPI's routing: some 10 µs of overhead instead of 90. In an application without that
middleware the routes do the same.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from inspect import Parameter, Signature
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from pgflows import headers
from pgflows.app import WorkflowApp
from pgflows.definitions import Step
from pgflows.errors import ServiceUnavailable, SignatureRefused, StepNotFound
from pgflows.http.problems import documented, limited, problem_for
from pgflows.http.service import Service, get_service
from pgflows.ledger.signing import Push
from pgflows.runner.failure import Failure
from pgflows.runner.outcome import (
    Cancelled,
    Completed,
    Failed,
    Later,
    Outcome,
    Running,
    Unknown,
)

logger = logging.getLogger("pgflows.audit")

MAX_PUSH = 64 * 1024 * 1024
"""Bytes of a step's input: outputs of earlier steps may add up to more than a workflow's input."""

STATUS_OF_FAILURE = {"InvalidInput": 422, "OutputTooLarge": 413}
ANY_FAILURE = 424

HEADERS = {
    headers.INSTANCE: "The orchestrator's id of the run",
    headers.STEP_KEY: "Which step of the run this is",
    headers.SEQ: "Which node of the run asked for it",
    headers.SIGNATURE: "v1.<key id>.<HMAC-SHA256>, made by the database",
}

# As ASGI gives them.
_INSTANCE, _STEP_KEY, _SEQ, _SIGNATURE = (name.lower().encode() for name in HEADERS)


async def push(request: Request, step: str) -> Response:
    """Answers one push. Every error becomes a problem, and a refusal is logged with its reason."""
    try:
        service = get_service(request)
    except ServiceUnavailable as e:
        return problem_for(request, e)
    try:
        began = time.perf_counter()
        response = await _run(service, request, step)
        took = time.perf_counter() - began
        service.metrics.step_seconds.labels(step, response.status_code).observe(took)
        return response
    except SignatureRefused as e:
        service.metrics.push_refused()
        df_id = request.headers.get(headers.INSTANCE)
        logger.warning("refused a push of step %r for run %r: %s", step, df_id, e.message)
        return problem_for(request, e)
    except Exception as e:
        return problem_for(request, e)


async def _run(service: Service, request: Request, step: str) -> Response:
    given = {name: value.decode("latin-1") for name, value in request.scope["headers"]}
    signature = given.get(_SIGNATURE)
    if signature is None:
        raise SignatureRefused("the request is not signed")  # before its body is taken in
    push = Push(
        df_id=given.get(_INSTANCE, ""),
        step=step,
        step_key=given.get(_STEP_KEY, ""),
        seq=given.get(_SEQ, ""),
        signature=signature,
        body=await _body(limited(request.receive, MAX_PUSH)),
    )
    asked = await service.signatures.verify(push)
    if step not in service.app.steps:
        raise StepNotFound(f"this service has no step {step}", step=step)
    outcome = await service.runner.run_step(asked)
    response = response_to(outcome)
    if isinstance(outcome, Completed | Failed):
        response.headers[headers.RECORDED] = headers.recorded(push.df_id, push.step_key)
    return response


def response_to(outcome: Outcome) -> Response:
    """How an outcome travels."""
    match outcome:
        case Completed(output):
            return _json(200, output)
        case Failed(error):
            return _json(STATUS_OF_FAILURE.get(error.type, ANY_FAILURE), _failure(error))
        case Running():
            return _json(409, b'{"detail":"the step is still running"}')
        case Later(seconds, why):
            body = json.dumps({"detail": why}).encode()
            return _json(429, body, {"Retry-After": f"{max(seconds, 0):.3f}"})
        case Cancelled():
            return _json(410, b'{"detail":"the instance was cancelled, or is gone"}')
        case Unknown():
            raise SignatureRefused(
                "no such call is open: the run did not ask for it, or it was answered long ago",
                reason="unknown-call",
            )


def _json(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")


def _failure(error: Failure) -> bytes:
    told = {"type": error.type, "message": error.message}
    return json.dumps({"error": told, "retryable": False, "retry_after": None}).encode()


async def _body(receive: Receive) -> bytes:
    """As `Request.body`, without its two generators."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


class PushRoute(APIRoute):
    """A route whose endpoint is there for OpenAPI only: `push` answers, from the raw request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            return await push(request, request.path_params.get("step") or self.name)

        return answer


class PushMiddleware:
    """Answers pushes before routing."""

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        self.app = app
        self._steps = f"{prefix}/steps/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"].startswith(self._steps)
            and "/" not in (step := scope["path"][len(self._steps) :])
            and step
        ):
            response = await push(Request(scope, receive, send), step)
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def add_step_routes(router: APIRouter, app: WorkflowApp) -> None:
    """A documented route per step, and one for all other names."""
    for step in app.steps.values():
        router.add_api_route(
            f"/steps/{step.name}",
            _documentation(step),
            methods=["POST"],
            name=step.name,
            operation_id=f"step_{step.name}",
            summary=f"Run step {step.name}",
            description=f"{step.fn.__doc__ or ''}\n\nCalled by the database, with its signature.",
            tags=["steps"],
            responses=documented(401, 409, 410, 413, 422, 424, 429, 503),
            openapi_extra={"parameters": _HEADER_PARAMETERS},
            route_class_override=PushRoute,
        )
    router.add_api_route(
        "/steps/{step}",
        _unknown_step,
        methods=["POST"],
        include_in_schema=False,
        route_class_override=PushRoute,
    )


_HEADER_PARAMETERS = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }
    for name, description in HEADERS.items()
]


def _documentation(step: Step[Any, Any]) -> Callable[..., Any]:
    """A function with the step's signature, as FastAPI reads it for OpenAPI."""

    def endpoint(input: Any) -> Any: ...

    parameter = Parameter("input", Parameter.POSITIONAL_OR_KEYWORD, annotation=step.input_model)
    endpoint.__signature__ = Signature(  # type: ignore[attr-defined]  # how inspect is told
        [parameter], return_annotation=step.output_model
    )
    return endpoint


def _unknown_step(step: str) -> None: ...
