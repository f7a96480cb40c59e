"""HEAD, which container probes use, is answered as GET is."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from pgflows.http.app import create_app
from tests.http.conftest import listening, over_asgi, settings_for
from tests.http.flows import make_app
from tests.http.test_mounted import own_app

PATHS = [
    "/healthz", "/readyz", "/metrics", "/", "/stats", "/workflows", "/instances", "/docs",
    "/openapi.json", "/export/process_order.sql", "/instances/00000000",
]  # fmt: skip


async def test_head_answers_as_get_does_without_a_body(database: Any) -> None:
    fastapi = create_app(make_app(), settings_for(), dsn=database.dsn)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            listening(fastapi, listener),
            httpx.AsyncClient(base_url=url) as http,
        ):
            for path in PATHS:
                head, get = await http.head(path), await http.get(path)
                assert head.status_code == get.status_code, path
                assert head.headers["content-type" if path != "/" else "location"]
                assert head.content == b""


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_head_answers_under_a_prefix_too(database: Any, path: str) -> None:
    async with over_asgi(own_app(database)) as http:
        head, get = await http.head(f"/pgflows{path}"), await http.get(f"/pgflows{path}")
    assert head.status_code == get.status_code


def test_openapi_does_not_repeat_operations_for_head() -> None:
    document = create_app(make_app(), settings_for(), dsn="postgresql://nowhere").openapi()
    assert all("head" not in operations for operations in document["paths"].values())
