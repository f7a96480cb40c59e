"""Errors that nobody expected: one problem, one traceback in the log."""

from __future__ import annotations

import logging
import socket
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from pgflows import instances
from pgflows.http.app import create_app
from tests.http.conftest import listening, settings_for
from tests.http.flows import make_app


async def broken(*_args: Any, **_given: Any) -> str:
    raise ZeroDivisionError("secret")


async def broken_route() -> str:
    raise ZeroDivisionError("secret")


def assert_one_problem(response: httpx.Response, log: pytest.LogCaptureFixture) -> None:
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:pgflows:problem:internal-error"
    assert "secret" not in response.text
    assert len([r for r in log.records if r.exc_info]) == 1


async def get(fastapi: FastAPI, path: str) -> httpx.Response:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with listening(fastapi, listener), httpx.AsyncClient(base_url=url) as http:
            return await http.get(path)


async def test_unexpected_error_in_a_route_is_one_problem_and_one_traceback(
    database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(instances, "list_instances", broken)
    fastapi = create_app(make_app(), settings_for(), dsn=database.dsn)
    assert_one_problem(await get(fastapi, "/instances"), caplog)


async def test_unexpected_error_outside_of_the_routes_is_one_problem_and_one_traceback(
    database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    fastapi = create_app(make_app(), settings_for(), dsn=database.dsn)
    fastapi.add_api_route("/broken", broken_route)
    assert_one_problem(await get(fastapi, "/broken"), caplog)
