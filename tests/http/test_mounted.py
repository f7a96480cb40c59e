"""The routes inside an application of the user's own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from pgflows.client import Client
from pgflows.http.app import pgflows_lifespan
from pgflows.http.router import create_pgflows_router
from tests.http.conftest import listening, over_asgi, settings_for
from tests.http.flows import make_app


def own_app(database: Any, **given: Any) -> FastAPI:
    app = make_app()
    with_engine = given.pop("with_engine", False)

    @asynccontextmanager
    async def lifespan(fastapi: FastAPI) -> AsyncIterator[None]:
        async with pgflows_lifespan(
            fastapi,
            app,
            settings_for(**given),
            dsn=database.dsn,
            prefix="/pgflows",
            with_engine=with_engine,
        ):
            yield

    fastapi = FastAPI(lifespan=lifespan)
    fastapi.include_router(create_pgflows_router(app, prefix="/pgflows"))

    @fastapi.get("/own")
    async def own() -> str:
        return "mine"

    return fastapi


async def test_the_routes_stand_under_the_prefix(database: Any) -> None:
    async with over_asgi(own_app(database)) as http:
        assert (await http.get("/own")).json() == "mine"
        assert (await http.get("/pgflows/workflows/process_order")).status_code == 200
        assert (await http.get("/workflows")).status_code == 404
        missing = await http.get("/pgflows/workflows/nothing")
        push = await http.post("/pgflows/steps/charge", json={})
        unknown = await http.post("/pgflows/steps/nothing", json={})
        exported = await http.get("/pgflows/export/process_order.sql")
    assert missing.json()["type"] == "urn:pgflows:problem:workflow-not-found"
    assert push.json()["type"] == "urn:pgflows:problem:signature-refused"
    assert unknown.status_code == 401
    assert "/pgflows/steps/charge" in exported.text


async def test_engines_reach_the_steps_there(database: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/pgflows"
        fastapi = own_app(database, base_url=url, run_dsn=database.run_dsn, with_engine=True)
        async with listening(fastapi, listener), Client(url) as client:
            order = {"order_id": "ORD-1", "amount": 1}
            done = await client.start("process_order", order, wait=20)
    assert done.status == "completed"


async def test_errors_of_the_users_own_routes_stay_theirs(database: Any) -> None:
    async with over_asgi(own_app(database)) as http:
        response: httpx.Response = await http.get("/nothing")
    assert response.json() == {"detail": "Not Found"}
