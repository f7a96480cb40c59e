"""One deployment over ASGI on a fresh database; where engines must reach it, a real listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from pgflows.client import Client
from pgflows.config import Settings
from pgflows.http.app import create_app
from tests.http.flows import make_app

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def settings_for(**given: Any) -> Settings:
    """Settings of a test, whatever the environment says."""
    return Settings.model_validate({"step_timeout": 5.0, "pool_size": 4} | given)


@asynccontextmanager
async def over_asgi(fastapi: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """An application with its lifespan, and a client that calls it without a network."""
    transport = httpx.ASGITransport(app=fastapi, raise_app_exceptions=False)
    async with (
        fastapi.router.lifespan_context(fastapi),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield http


@asynccontextmanager
async def listening(fastapi: FastAPI, listener: socket.socket) -> AsyncIterator[None]:
    """An application behind a real server, in this loop."""
    server = uvicorn.Server(uvicorn.Config(fastapi, log_config=None, log_level="warning"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def serve(database: Any) -> Serve:
    """A service on this test's database, with the settings that the test gives."""

    def start(**settings: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return over_asgi(create_app(make_app(), settings_for(**settings), dsn=database.dsn))

    return start


@pytest.fixture
async def http(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """An open service without an engine: instances stay as they were started."""
    async with serve() as http:
        yield http


@pytest.fixture
async def live(database: Any) -> AsyncIterator[Client]:
    """A client of a service that listens and has an engine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = settings_for(base_url=url, run_dsn=database.run_dsn)
        fastapi = create_app(make_app(), settings, dsn=database.dsn, with_engine=True)
        async with listening(fastapi, listener), Client(url) as client:
            yield client
