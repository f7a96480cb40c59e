"""The page of the API and the document it shows, without anything from another server.

They need what the control API needs, since they name every step and its models. The files of
Swagger UI come with the package fastapi-offline.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from pgflows.http.auth import ControlRoute
from pgflows.http.problems import ProblemRoute

_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_METHODS = ["GET", "HEAD"]


def add_docs(fastapi: FastAPI) -> None:
    """Serve /, /docs, its files and /openapi.json."""
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/", _to_page, methods=_METHODS, route_class_override=ProblemRoute)
    router.add_api_route("/docs", _page, methods=_METHODS, route_class_override=ControlRoute)
    router.add_api_route(
        "/openapi.json", _document, methods=_METHODS, route_class_override=ControlRoute
    )
    fastapi.include_router(router)
    fastapi.mount("/docs/files", StaticFiles(packages=[("fastapi_offline", "static")]))


async def _to_page() -> Response:
    """For people who open the service in a browser."""
    return RedirectResponse("/docs")


async def _page(request: Request) -> Response:
    """Swagger UI."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url="docs/files/swagger-ui-bundle.js",
        swagger_css_url="docs/files/swagger-ui.css",
        swagger_favicon_url="docs/files/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # a service on the internet otherwise
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


async def _document(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())
