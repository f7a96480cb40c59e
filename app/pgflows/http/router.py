"""The control API: a route parses, asks one function and returns its model.

`create_pgflows_router` makes the same routes for an application of the user's own; see
`pgflows.http.app.pgflows_lifespan` for what that application's lifespan has to open.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field

from pgflows import instances
from pgflows.app import WorkflowApp
from pgflows.database.storable import check_text
from pgflows.errors import CompileErrors
from pgflows.http import health
from pgflows.http.auth import ControlRoute, bearer
from pgflows.http.metrics import MEDIA_TYPE
from pgflows.http.problems import ProblemRoute, documented
from pgflows.http.service import DepService
from pgflows.http.steps import add_step_routes
from pgflows.messages import (
    CancelRequest,
    History,
    Instance,
    InstancePage,
    Label,
    Live,
    Ready,
    Started,
    StartRequest,
    Stats,
    Status,
    Time,
    WorkflowInfo,
    WorkflowList,
)

WorkflowName = Annotated[
    str,
    Path(description="A registered workflow", max_length=63, examples=["process_order"]),
    AfterValidator(check_text),
]
InstanceId = Annotated[
    str,
    Path(
        description="An instance_id (uuid) or a df_id (eight hex digits)",
        pattern=r"^([0-9a-f]{8}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
        examples=["019aa7d2-6b1c-7c3e-9b0a-3f2f6f0d9a11"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="1 to 255 printable ASCII characters; the same key starts the same workflow "
        "once",
        pattern=r"^[\x20-\x7e]{1,255}$",
    ),
]
WorkflowFilter = Annotated[str, Field(max_length=63), AfterValidator(check_text)]
Wait = Annotated[
    float,
    Query(description="Seconds to wait for the end", ge=0, le=300, allow_inf_nan=False),
]


class DocumentResponse(Response):
    """The text of a JSON document, as the database wrote it."""

    media_type = "application/json"


control = APIRouter(
    route_class=ControlRoute,
    dependencies=[Depends(bearer)],
    responses=documented(401, 403, 422, 503),
    tags=["workflows"],
)
health_routes = APIRouter(route_class=ProblemRoute, tags=["health"])


def create_pgflows_router(app: WorkflowApp, prefix: str = "") -> APIRouter:
    """Every route of pgflows under `prefix`, to include in a FastAPI application."""
    if errors := app.check_definitions():
        raise CompileErrors(errors)
    router = APIRouter(prefix=prefix, generate_unique_id_function=_operation_id)
    router.include_router(control)
    router.include_router(health_routes)
    add_step_routes(router, app)
    return router


def _operation_id(route: APIRoute) -> str:
    return route.name


@control.get("/workflows", response_model=WorkflowList)
async def list_workflows(service: DepService) -> Response:
    """Every workflow that can be started."""
    return DocumentResponse(await instances.workflows(service.access))


@control.get("/workflows/{name}", response_model=WorkflowInfo, responses=documented(404))
async def get_workflow(service: DepService, name: WorkflowName) -> Response:
    """A workflow: its version, schemas, steps with their retry policy, and its graph."""
    return DocumentResponse(await instances.workflow(service.access, name))


@control.post(
    "/workflows/{name}/start",
    status_code=201,
    response_model=Started,
    responses=documented(400, 404, 409, 413, 415)
    | {200: {"model": Started, "description": "The idempotency key had started it before"}},
)
async def start_workflow(
    service: DepService,
    name: WorkflowName,
    body: StartRequest,
    idempotency_key: IdempotencyKey = None,
    wait: Wait = 0,
) -> Response:
    """Start a workflow; with `wait`, answer when it has ended or the seconds are over."""
    service.check_input(name, body.input)
    begun = await instances.start(
        service.access, name, body, idempotency_key=idempotency_key, seconds=wait
    )
    return DocumentResponse(begun.document, 201 if begun.created else 200)


@control.get("/instances", response_model=InstancePage)
async def list_instances(
    service: DepService,
    workflow: Annotated[WorkflowFilter | None, Query()] = None,
    status: Status | None = None,
    label: Annotated[Label | None, Query()] = None,
    since: Annotated[Time | None, Query(description="Created then or later")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[UUID | None, Query(description="next_cursor of the page before")] = None,
) -> Response:
    """A page of instances, newest first."""
    page = await instances.list_instances(
        service.access,
        workflow=workflow,
        status=status,
        label=label,
        since=since,
        limit=limit,
        cursor=cursor,
    )
    return DocumentResponse(page)


@control.get("/instances/{instance}", response_model=Instance, responses=documented(404))
async def get_instance(service: DepService, instance: InstanceId) -> Response:
    """An instance: status, input, output, error, times."""
    return DocumentResponse(await instances.get(service.access, instance))


@control.get("/instances/{instance}/history", response_model=History, responses=documented(404))
async def get_history(service: DepService, instance: InstanceId) -> Response:
    """An instance with its steps in order, their attempts, and the nodes of its graph."""
    return DocumentResponse(await instances.history(service.access, instance))


@control.post(
    "/instances/{instance}/cancel",
    response_model=Instance,
    responses=documented(400, 404, 409, 413, 415),
)
async def cancel_instance(
    service: DepService, instance: InstanceId, body: Annotated[CancelRequest | None, Body()] = None
) -> Response:
    """End a live instance; one that has ended is answered as it is."""
    return DocumentResponse(await instances.cancel(service.access, instance, body))


@control.get(
    "/export/{name}.sql",
    response_class=PlainTextResponse,
    responses=documented(404),
)
async def export_workflow(service: DepService, name: WorkflowName) -> Response:
    """The workflow as SQL that a DBA can run with psql."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.sql"'}
    return PlainTextResponse(service.export(name), headers=headers)


@control.get("/stats", tags=["figures"])
async def get_stats(service: DepService) -> Stats:
    """Figures of the orchestrator, the engines, the queues and the connections."""
    return await service.stats()


@control.get("/metrics", response_class=PlainTextResponse, tags=["figures"])
async def get_metrics(service: DepService) -> Response:
    """The figures in Prometheus' text format."""
    return Response(await service.metrics.render(service.access), media_type=MEDIA_TYPE)


@health_routes.get("/healthz")
async def healthz() -> Live:
    """The process answers."""
    return Live()


@health_routes.get("/readyz", responses={503: {"model": Ready}})
async def readyz(service: DepService, response: Response) -> Ready:
    """The database is there, its migrations are this code's, and an engine lives."""
    ready = await health.check(service.access)
    response.status_code = 200 if ready.status == "ready" else 503
    return ready


def _answer_head(router: APIRouter) -> None:
    """HEAD is answered as GET is; the server leaves the body out."""
    routes = [r for r in router.routes if isinstance(r, APIRoute)]
    for route in [r for r in routes if "GET" in (r.methods or ())]:
        router.add_api_route(
            route.path,
            route.endpoint,
            methods=["HEAD"],
            response_class=route.response_class,
            include_in_schema=False,
        )


_answer_head(control)
_answer_head(health_routes)
