"""Runs the service in this process until a signal asks it to end.

The application's lifespan is entered here and not by the HTTP server. So an error while opening
reaches the caller unchanged. After a signal no new request is accepted, the running ones end, then
engine, ledger and pool are closed in this order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AsyncExitStack, contextmanager

import uvicorn
from fastapi import FastAPI

from pgflows.app import WorkflowApp
from pgflows.cli.process import collect_seldom, on_signals, run_to_end
from pgflows.cli.waiting import until_served
from pgflows.config import Settings
from pgflows.errors import SetupError
from pgflows.http.app import create_app


@contextmanager
def listener(settings: Settings) -> Iterator[socket.socket]:
    """Binds the port of the service, before anything else is started. Raises SetupError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        taken = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as e:
        raise SetupError(
            f"cannot listen on {settings.host}, port {settings.port}: {_reason(e)}; "
            "stop what uses it, or give another with --port (or PGFLOWS_PORT)"
        ) from e
    with taken:
        yield taken


def _reason(error: OSError) -> str:
    """The operating system's words, without the address that Python adds to them."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def run_service(
    app: WorkflowApp,
    settings: Settings,
    dsn: str,
    taken: socket.socket,
    opened: Callable[[], None],
    *,
    with_engine: bool,
) -> None:
    """Serves until SIGINT or SIGTERM; calls `opened` when requests are answered."""
    service = create_app(app, settings, dsn=dsn, with_engine=with_engine)
    collect_seldom()
    run_to_end(_serve(service, taken, opened))


class _Server(uvicorn.Server):
    """Leaves signals alone: uvicorn would raise them again before the lifespan has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _serve(fastapi: FastAPI, taken: socket.socket, opened: Callable[[], None]) -> None:
    config = uvicorn.Config(
        fastapi,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,
    )
    server = _Server(config)

    async with AsyncExitStack() as stack:
        opening = asyncio.create_task(
            until_served(
                lambda: stack.enter_async_context(fastapi.router.lifespan_context(fastapi))
            )
        )

        def end() -> None:
            opening.cancel()
            server.force_exit = server.should_exit
            server.should_exit = True

        on_signals(end)
        try:
            await opening
        except asyncio.CancelledError:
            return
        serving = asyncio.create_task(server.serve(sockets=[taken]))
        while not (server.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if server.started:
            opened()
        await serving
