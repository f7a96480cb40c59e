"""Errors as application/problem+json."""

from __future__ import annotations

import httpx
import pytest
from fastapi import Request

from pgflows import errors
from pgflows.client import BY_TYPE
from pgflows.http.problems import STATUS, problem_for
from pgflows.messages import problem_type

REQUEST = Request(
    {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": [],
     "server": ("service", 80), "scheme": "http"}
)  # fmt: skip

REQUEST_ERRORS = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.RequestError)
]


@pytest.mark.parametrize("cls", [*REQUEST_ERRORS, errors.SignatureRefused])
def test_every_refusal_has_a_status_and_comes_back_as_its_class(
    cls: type[errors.PgflowsError],
) -> None:
    assert 400 <= STATUS[cls] < 500
    assert BY_TYPE[problem_type(cls)] is cls


def test_every_sqlstate_of_ours_has_a_class() -> None:
    assert set(errors.BY_SQLSTATE) == {f"PF0{n}" for n in range(10, 17)}


def test_a_type_is_stable() -> None:
    assert problem_type(errors.InvalidInput) == "urn:pgflows:problem:invalid-input"


def test_the_last_resort_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    response = problem_for(REQUEST, ValueError("secret"))
    assert response.status_code == 500
    assert b"secret" not in response.body
    assert "secret" in caplog.text


async def test_unknown_paths_and_methods_are_problems_too(http: httpx.AsyncClient) -> None:
    for method, path, status, slug in (
        ("GET", "/nothing", 404, "not-found"),
        ("DELETE", "/instances", 405, "method-not-allowed"),
        ("GET", "/steps/charge", 405, "method-not-allowed"),
        ("POST", "/steps/", 404, "not-found"),
        ("POST", "/steps/a/b", 404, "not-found"),
    ):
        response = await http.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == f"urn:pgflows:problem:{slug}"


async def test_a_browser_finds_the_docs(http: httpx.AsyncClient) -> None:
    response = await http.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")
