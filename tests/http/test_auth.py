"""API keys, and what is open without them."""

from __future__ import annotations

import httpx
import pytest

from pgflows.config import is_loopback
from pgflows.http.app import create_app
from pgflows.http.keys import ApiKeys
from tests.http.conftest import Serve, settings_for
from tests.http.flows import make_app

CONTROL = [
    ("GET", "/workflows"),
    ("GET", "/workflows/process_order"),
    ("POST", "/workflows/process_order/start"),
    ("GET", "/instances"),
    ("GET", "/instances/00000000"),
    ("GET", "/instances/00000000/history"),
    ("POST", "/instances/00000000/cancel"),
    ("GET", "/export/process_order.sql"),
    ("GET", "/metrics"),
    ("GET", "/stats"),
]


WRONG = [
    None,
    b"Bearer wrong",
    b"Bearer ",
    b"Bearer one,two",
    b"Basic b25l",
    b"one",
    b"Bearer \xff",
]


async def test_every_control_route_wants_a_key(serve: Serve) -> None:
    async with serve(api_keys="one,two") as http:
        for header in WRONG:
            headers = {b"Authorization": header} if header is not None else {}
            for method, path in CONTROL:
                response = await http.request(method, path, headers=headers)
                assert response.status_code == 401, path
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json()["type"] == "urn:pgflows:problem:unauthorized"
                assert "Authorization: Bearer" in response.json()["hint"]


async def test_a_refusal_leaves_a_line_without_the_key(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(api_keys="one") as http:
        await http.get("/workflows", headers={"Authorization": "Bearer guessed"})
    [line] = [r.getMessage() for r in caplog.records if r.name == "pgflows.audit"]
    assert line.startswith("refused: GET '/workflows' from ")
    assert "guessed" not in line


async def test_each_of_the_keys_opens(serve: Serve) -> None:
    async with serve(api_keys="one,two") as http:
        for key in ("one", "two"):
            response = await http.get("/workflows", headers={"Authorization": f"Bearer {key}"})
            assert response.status_code == 200


async def test_health_and_pushes_are_not_behind_keys(serve: Serve) -> None:
    async with serve(api_keys="one") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        push = await http.post("/steps/charge", json={})
    assert push.json()["type"] == "urn:pgflows:problem:signature-refused"


async def test_without_keys_only_this_machine_may_ask(serve: Serve) -> None:
    async with serve() as http:
        app = http._transport.app  # type: ignore[attr-defined]  # the application under test
        elsewhere = httpx.ASGITransport(app=app, client=("192.0.2.1", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url="http://service") as far:
            refused = await far.get("/workflows")
        assert (await http.get("/workflows")).status_code == 200
    assert refused.status_code == 401
    assert refused.json()["hint"] == "Set PGFLOWS_API_KEYS."


async def test_a_service_that_is_not_open_says_so() -> None:
    fastapi = create_app(make_app(), settings_for(), dsn="postgresql://127.0.0.1:1/none")
    transport = httpx.ASGITransport(app=fastapi)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/workflows")).status_code == 503


def test_keys_are_kept_as_hashes() -> None:
    keys = ApiKeys(["one", "zwei ö"])
    assert "one" not in repr(vars(keys))
    assert keys.accept("zwei ö")
    assert not keys.accept("")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("testclient", False),
        (None, False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str | None, local: bool) -> None:
    assert is_loopback(host) is local
