"""The FastAPI application of a deployment, and the lifespan to put pgflows into another one.

    service = FastAPI(lifespan=lambda fastapi: pgflows_lifespan(fastapi, app, prefix="/pgflows"))
    service.include_router(create_pgflows_router(app, prefix="/pgflows"))

A service with a lifespan of its own enters `pgflows_lifespan` inside it:

    @asynccontextmanager
    async def lifespan(fastapi: FastAPI) -> AsyncIterator[None]:
        async with pgflows_lifespan(fastapi, app, prefix="/pgflows"):
            yield

    service = FastAPI(lifespan=lifespan)
    service.include_router(create_pgflows_router(app, prefix="/pgflows"))

Engines call the steps at the base URL: PGFLOWS_BASE_URL must then include the prefix. If it is
unset, the base URL is http://HOST:PORT plus the prefix. Pushes are faster if a middleware takes
them before any other sees them:

    service.add_middleware(PushMiddleware, prefix="/pgflows")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from pgflows import telemetry
from pgflows.app import WorkflowApp
from pgflows.config import Settings
from pgflows.errors import PgflowsError
from pgflows.http.docs import add_docs
from pgflows.http.problems import install_handlers
from pgflows.http.router import create_pgflows_router
from pgflows.http.service import open_service
from pgflows.http.steps import PushMiddleware

DESCRIPTION = """\
Durable workflows on PostgreSQL. Start one, look at it, cancel it; its steps are called back over
HTTP at `POST /steps/{name}`, signed by the database. Errors are `application/problem+json` with a
stable `type`.
"""


class Api(FastAPI):
    """Pushes, which are most of the traffic, are answered in front of the middleware stack."""

    pushes: PushMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.pushes is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.pushes(scope, receive, send)


def create_app(
    app: WorkflowApp,
    settings: Settings | None = None,
    *,
    dsn: str | None = None,
    with_engine: bool = False,
) -> FastAPI:
    """Serve a WorkflowApp: control API, steps and, if asked, an engine in the same process."""

    @asynccontextmanager
    async def lifespan(fastapi: FastAPI) -> AsyncIterator[None]:
        opened = pgflows_lifespan(fastapi, app, settings, dsn=dsn, with_engine=with_engine)
        try:
            async with opened:
                yield
        except PgflowsError as e:
            fastapi.state.failure = e  # whoever runs the server shows the reason in one line
            raise

    fastapi = Api(
        title="pgflows",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # no page of FastAPI's: they load scripts of other servers
    )
    install_handlers(fastapi)
    fastapi.include_router(create_pgflows_router(app))
    add_docs(fastapi)
    if telemetry.setup(settings or app.settings):
        telemetry.instrument(fastapi)  # and every push passes through it
    else:
        fastapi.pushes = PushMiddleware(partial(FastAPI.__call__, fastapi))
    return fastapi


@asynccontextmanager
async def pgflows_lifespan(
    fastapi: FastAPI,
    app: WorkflowApp,
    settings: Settings | None = None,
    *,
    dsn: str | None = None,
    prefix: str = "",
    with_engine: bool = False,
) -> AsyncIterator[None]:
    """Open what the routes of `create_pgflows_router` need, and close it in order.

    The database must be migrated (`pgflows migrate`). Without `dsn`, the setting is taken.
    """
    async with open_service(
        app, settings or app.settings, dsn=dsn, prefix=prefix, with_engine=with_engine
    ) as service:
        fastapi.state.pgflows = service
        yield


def _version() -> str:
    try:
        return version("pgflows")
    except PackageNotFoundError:  # a bare checkout on the path
        return "0"
