"""Runs the service or an engine in this process until a signal asks it to end.

The application's lifespan is entered here and not by the HTTP server: so an error while opening
comes out as it is, and after a signal the order is the same for all: no new requests, the running
ones end, then engine, ledger and pool are closed, then the caller goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from pgflows.engine import open_engine
from pgflows.errors import SetupError
from pgflows.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def listener(settings: Settings) -> Iterator[socket.socket]:
    """The port of the service, taken before anything else is started."""
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
    """The system's words alone, where Python has added the address to them."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def run_service(fastapi: FastAPI, taken: socket.socket, opened: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM; calls `opened` when requests are answered."""
    _collect_seldom()
    uvloop.run(_serve(fastapi, taken, opened))


def run_engine(settings: Settings, dsn: str) -> None:
    """Runs an engine until SIGINT or SIGTERM."""
    _collect_seldom()
    uvloop.run(_engine(settings, dsn))


def _collect_seldom() -> None:
    """What was imported stays; the rest is mostly freed by reference counting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn would raise them again before our lifespan has ended."""

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

    def end() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    _on_signals(end)
    async with fastapi.router.lifespan_context(fastapi):
        serving = asyncio.create_task(server.serve(sockets=[taken]))
        while not (server.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if server.started:
            opened()
        await serving


async def _engine(settings: Settings, dsn: str) -> None:
    async def run() -> None:
        async with open_engine(settings, dsn=dsn) as running:
            await running.run()

    task = asyncio.create_task(run())
    _on_signals(task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _on_signals(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, act)
