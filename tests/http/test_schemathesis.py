"""Requests made up from the OpenAPI document: whatever is sent, the service does not break."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks
from schemathesis.core.result import Ok

from pgflows import instances
from pgflows.database.access import Access
from pgflows.http.app import create_app
from pgflows.instances import Begun
from tests.http.conftest import settings_for
from tests.http.flows import make_app

ALL_CHECKS = list(HealthCheck)


async def at_once(access: Access, begun: Begun, seconds: float) -> Begun:
    """Stands in for the wait."""
    return begun


@pytest.fixture
def url(database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service in a thread, as schemathesis is not async; nobody waits for runs to end in it."""
    monkeypatch.setattr(instances, "_wait", at_once)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fastapi = create_app(make_app(), settings_for(), dsn=database.dsn)
        server = uvicorn.Server(uvicorn.Config(fastapi, log_level="error"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


CHECKS = (
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_breaks_the_service_or_its_document(url: str, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in document.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=ALL_CHECKS)
        @given(case=operation.as_strategy(generation_mode=mode))
        def probe(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500 or case.path == "/readyz", response.text
            case.validate_response(response, checks=CHECKS)

        with suppress(Unsatisfiable):  # nothing in this operation can be wrong
            probe()
