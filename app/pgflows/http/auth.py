"""Who may use the control API: bearers of an API key; without any configured, this machine only.

Health checks and pushes of steps need no key: the former tell nothing, the latter are signed.
"""

from __future__ import annotations

import logging

from fastapi import Request
from fastapi.security import HTTPBearer

from pgflows.config import is_loopback
from pgflows.errors import Forbidden, RequestError, Unauthorized
from pgflows.http.hosts import check_names
from pgflows.http.problems import ProblemRoute
from pgflows.http.service import Service, get_service

log = logging.getLogger("pgflows.audit")
bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="One of PGFLOWS_API_KEYS")
"""As a dependency, what OpenAPI shows; the check itself comes before any of the body is read."""


class ControlRoute(ProblemRoute):
    """A route of the control API."""

    async def admit(self, request: Request) -> None:
        """Raise if the request bears no valid key or, where none is set, is not of this machine."""
        service = get_service(request)
        try:
            if service.api_keys:
                await _check_key(service, request)
            else:
                _check_local(service, request)
        except (Unauthorized, Forbidden) as e:
            _log_refusal(request, e)
            raise


async def _check_key(service: Service, request: Request) -> None:
    credentials = await bearer(request)
    if credentials is None or not service.api_keys.accept(credentials.credentials):
        raise Unauthorized(
            "The request has no valid API key.",
            hint="Send one of PGFLOWS_API_KEYS as the header Authorization: Bearer KEY.",
        )


def _check_local(service: Service, request: Request) -> None:
    if not is_loopback(_client(request)):
        raise Unauthorized(
            "No API keys are set, so only this machine may ask.", hint="Set PGFLOWS_API_KEYS."
        )
    check_names(
        request.headers.get("host"), request.headers.get("origin"), service.settings.allowed_hosts
    )


def _log_refusal(request: Request, error: RequestError) -> None:
    log.warning(
        "refused: %s %r from %s: %s",
        request.method, request.url.path, _client(request), error.message,
    )  # fmt: skip


def _client(request: Request) -> str | None:
    return request.client.host if request.client else None
