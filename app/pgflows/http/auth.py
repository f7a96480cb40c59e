"""Who may use the control API: bearers of an API key; without any configured, this machine only.

Health checks and the push route are not behind keys: the one says nothing, the other has
signatures.
"""

from __future__ import annotations

import logging

from fastapi import Request
from fastapi.security import HTTPBearer

from pgflows.config import is_loopback
from pgflows.errors import Unauthorized
from pgflows.http.problems import ProblemRoute
from pgflows.http.service import get_service

log = logging.getLogger("pgflows.audit")
bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="One of PGFLOWS_API_KEYS")
"""As a dependency, what OpenAPI shows; the check itself comes before any of the body is read."""


class ControlRoute(ProblemRoute):
    """A route of the control API."""

    async def admit(self, request: Request) -> None:
        """Let in who bears a key, or asks from this machine where there are none."""
        keys = get_service(request).api_keys
        client = request.client.host if request.client else None
        if keys:
            credentials = await bearer(request)
            if credentials is None or not keys.accept(credentials.credentials):
                log.warning(
                    "refused: %s %r from %s: no valid key", request.method, request.url.path, client
                )
                raise Unauthorized(
                    hint="Send one of PGFLOWS_API_KEYS as the header Authorization: Bearer KEY."
                )
        elif not is_loopback(client):
            log.warning(
                "refused: %s %r from %s: not this machine", request.method, request.url.path, client
            )
            raise Unauthorized(
                "No API keys are set, so only this machine may ask.", hint="Set PGFLOWS_API_KEYS."
            )
