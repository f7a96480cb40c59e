"""Web pages cannot use a service without API keys: host names and origins that it answers to."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pgflows.config import Settings
from pgflows.errors import Forbidden
from pgflows.http.hosts import check_names
from tests.http.conftest import Serve, over_asgi
from tests.http.test_auth import CONTROL
from tests.http.test_mounted import own_app

OWN_HOSTS = [
    "localhost", "LOCALHOST:8000", "localhost.:8000", "127.0.0.1", "127.9.9.9:1", "[::1]:8000",
    "listed.example", "Listed.Example:80",
]  # fmt: skip
FOREIGN_HOSTS = [
    None, "", "evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "10.0.0.7",
    "[::2]", "evil.example:127", "a@localhost", "localhost:8000/x", "xlisted.example", "8.8.8.8",
]  # fmt: skip
OWN_ORIGINS = [
    "http://127.0.0.1:8000", "http://localhost:8000", "https://listed.example",
    "http://listed.example:3000",
]  # fmt: skip
FOREIGN_ORIGINS = [
    "", "null", "http://evil.example", "http://evil.example:8000", "https://127.0.0.1:8000",
    "http://localhost:3000", "http://localhost", "http://127.0.0.1:8000x", "file://",
    "http://localhost:8000.evil.example",
]  # fmt: skip
ALLOWED = ("listed.example",)


def refused(host: str | None, origin: str | None) -> bool:
    try:
        check_names(host, origin, ALLOWED)
    except Forbidden:
        return True
    return False


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_a_loopback_or_listed_host_name_is_answered(host: str) -> None:
    assert not refused(host, None)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_any_other_host_name_is_refused(host: str | None) -> None:
    assert refused(host, None)


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_pages_of_the_service_and_of_listed_hosts_are_answered(origin: str) -> None:
    assert not refused("127.0.0.1:8000", origin)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_pages_of_any_other_origin_are_refused(origin: str) -> None:
    assert refused("127.0.0.1:8000", origin)


async def assert_forbidden(http: httpx.AsyncClient, prefix: str, headers: dict[str, str]) -> None:
    for method, path in CONTROL:
        response = await http.request(method, prefix + path, headers=headers)
        assert response.status_code == 403, path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == "urn:pgflows:problem:forbidden"
        assert "PGFLOWS_ALLOWED_HOSTS" in response.json()["hint"]


REBOUND = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
CROSS_ORIGIN = {"Host": "127.0.0.1:8000", "Origin": "http://evil.example"}


async def test_every_control_route_refuses_pages_of_others(http: httpx.AsyncClient) -> None:
    await assert_forbidden(http, "", REBOUND)
    await assert_forbidden(http, "", CROSS_ORIGIN)
    for path in ("/docs", "/openapi.json"):
        assert (await http.get(path, headers=REBOUND)).status_code == 403


async def test_mounted_control_routes_refuse_pages_of_others(database: Any) -> None:
    async with over_asgi(own_app(database)) as http:
        await assert_forbidden(http, "/pgflows", REBOUND)
        await assert_forbidden(http, "/pgflows", CROSS_ORIGIN)
        assert (await http.get("/own", headers=REBOUND)).status_code == 200


async def test_a_setting_lists_host_names_that_are_answered(serve: Serve) -> None:
    async with serve(allowed_hosts="pgflows.local, other.local") as http:
        for host in ("pgflows.local", "other.local:8000", "localhost"):
            assert (await http.get("/workflows", headers={"Host": host})).status_code == 200
        assert (await http.get("/workflows", headers={"Host": "third.local"})).status_code == 403


async def test_with_keys_the_key_decides_and_not_the_host_name(serve: Serve) -> None:
    async with serve(api_keys="one") as http:
        with_key = {"Authorization": "Bearer one", "Host": "pgflows.example"}
        assert (await http.get("/workflows", headers=with_key)).status_code == 200
        assert (await http.get("/workflows", headers=REBOUND)).status_code == 401


async def test_health_and_pushes_answer_to_any_host_name(http: httpx.AsyncClient) -> None:
    headers = {"Host": "10.1.2.3:8000"}
    push = await http.post("/steps/charge", json={}, headers=headers)
    assert (await http.get("/healthz", headers=headers)).status_code == 200
    assert (await http.get("/readyz", headers=headers)).json()["database"] is True
    assert push.json()["type"] == "urn:pgflows:problem:signature-refused"


async def test_forwarded_headers_open_nothing(http: httpx.AsyncClient) -> None:
    forwarded = {
        "Host": "evil.example",
        "X-Forwarded-Host": "localhost",
        "X-Forwarded-For": "127.0.0.1",
        "Forwarded": "for=127.0.0.1;host=localhost",
    }
    assert (await http.get("/workflows", headers=forwarded)).status_code == 403
    app = http._transport.app  # type: ignore[attr-defined]  # the application under test
    elsewhere = httpx.ASGITransport(app=app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://localhost") as far:
        assert (await far.get("/workflows", headers=forwarded)).status_code == 401


@pytest.mark.parametrize("entry", ["http://a.example", "a.example:80", "*", "*.example", "a b"])
def test_allowed_hosts_are_names_only(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        Settings.model_validate({"allowed_hosts": entry})
