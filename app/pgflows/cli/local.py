"""The commands that run something here: dev, serve, engine, demo."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop
from rich.console import Console

from pgflows.cli.demo import run_demo, show
from pgflows.engine import open_engine
from pgflows.errors import ServerError, SetupError
from pgflows.http.app import create_app
from pgflows.http.keys import is_loopback
from pgflows.registry import WorkflowApp, load_app
from pgflows.schema import migrate
from pgflows.server import EmbeddedServer
from pgflows.settings import Settings

log = logging.getLogger("pgflows")
console = Console(soft_wrap=True)

Dsn = Annotated[str | None, typer.Option(help="The database; unset: PGFLOWS_DSN")]
Host = Annotated[str | None, typer.Option(help="Address to listen on; unset: 127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; unset: 8000")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (dev, serve, engine, demo):
        app.command(command.__name__)(command)


def settings_with(**given: object) -> Settings:
    """The environment's settings, with options of the command in front."""
    return Settings.model_validate(
        Settings().model_dump() | {k: v for k, v in given.items() if v is not None}
    )


def dev(dsn: Dsn = None, host: Host = None, port: Port = None) -> None:
    """PostgreSQL, migrations, the service and an engine, all in one."""
    settings = settings_with(dsn=dsn, host=host, port=port)
    _check_exposure(settings)
    app = load_app(settings.app)
    with _listener(settings) as listener, _database(settings) as (address, shown):
        asyncio.run(migrate(address, settings))
        _welcome(settings, shown, app)
        _run_service(app, settings, address, listener, with_engine=True)


def serve(
    dsn: Dsn = None,
    host: Host = None,
    port: Port = None,
    engine: Annotated[bool, typer.Option(help="Run an engine in this process too")] = True,
) -> None:
    """The service: control API and steps, on a migrated database."""
    settings = settings_with(dsn=dsn, host=host, port=port)
    _check_exposure(settings)
    app = load_app(settings.app)
    with _listener(settings) as listener:
        _run_service(app, settings, _required(settings), listener, with_engine=engine)


def engine(dsn: Dsn = None) -> None:
    """An engine as a process of its own; run as many as you like."""
    settings = settings_with(dsn=dsn)
    uvloop.run(_run_engine(settings, _required(settings)))


def demo(
    workflows: Annotated[int, typer.Option(min=10, max=5000, help="How many to run")] = 500,
    flights: Annotated[Path, typer.Option(help="The flight data")] = Path(
        "examples/flights/flights.csv"
    ),
) -> None:
    """Five hundred workflows with kills in between; exit code 1 if a step is lost or doubled."""
    outcome = asyncio.run(run_demo(flights, workflows, console))
    show(outcome, console)
    if not outcome.ok:
        raise typer.Exit(1)


# -- parts


def _required(settings: Settings) -> str:
    if not settings.dsn:
        raise SetupError(
            "no database is named: give --dsn or set PGFLOWS_DSN (or use `pgflows dev`)"
        )
    return settings.dsn


def _check_exposure(settings: Settings) -> None:
    """Closed unless opened: beyond loopback only with API keys."""
    local = settings.host == "localhost" or is_loopback(settings.host)
    if not local and not settings.api_keys:
        raise SetupError(
            f"refusing to listen on {settings.host} without API keys: set PGFLOWS_API_KEYS, or "
            "listen on 127.0.0.1"
        )


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    """The port, taken before anything else is started."""
    try:
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise SetupError(
                f"port {settings.port} of {settings.host} is taken: stop what uses it, or give "
                "another with --port"
            ) from e
        raise SetupError(
            f"cannot listen on {settings.host}:{settings.port}: {e.strerror or e}"
        ) from e
    with listener:
        yield listener


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, str]]:
    """The DSN for us and the one to show: the given database, or the embedded one."""
    if settings.dsn:
        yield settings.dsn, settings.dsn
        return
    directory = Path(settings.data_dir)
    server = EmbeddedServer(directory)
    server.prepare()
    with (directory / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise ServerError(
                f"another `pgflows dev` uses {directory}: stop it, or set PGFLOWS_DATA_DIR"
            ) from e
        address = server.start()
        try:
            yield address, server.dsn
        finally:
            server.stop()


def _run_service(
    app: WorkflowApp,
    settings: Settings,
    dsn: str,
    listener: socket.socket,
    *,
    with_engine: bool,
) -> None:
    port = listener.getsockname()[1]
    settings = settings.model_copy(update={"port": port})
    config = uvicorn.Config(
        create_app(app, settings, dsn=dsn, with_engine=with_engine),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        log_config=None,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,
    )
    server = _Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


class _Server(uvicorn.Server):
    """Keeps the error that the lifespan failed with, so that it is told in one line."""

    failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit and not self.started:
            self.failure = SetupError("the service could not start; the log says why")


async def _run_engine(settings: Settings, dsn: str) -> None:
    async with open_engine(settings, dsn=dsn) as running:
        task = asyncio.create_task(running.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _welcome(settings: Settings, dsn: str, app: WorkflowApp) -> None:
    url = f"http://{settings.host}:{settings.port}"
    name = (
        "process_order" if "process_order" in app.workflows else next(iter(app.workflows), "NAME")
    )
    body = '{"input": {"order_id": "ORD-1", "amount": 99.0}}'
    console.print(f"\npgflows is at {url} (API: {url}/docs)", highlight=False)
    console.print(f'PostgreSQL:   psql "{dsn}"', highlight=False, markup=False)
    console.print("\nTry:", highlight=False)
    for line in (
        f"curl -s -X POST '{url}/workflows/{name}/start?wait=10' "
        f"-H 'Content-Type: application/json' -d '{body}'",
        f"curl -s {url}/instances",
        f"curl -s {url}/export/{name}.sql",
    ):
        console.print(f"  {line}", highlight=False, markup=False)
    console.print("\nCtrl-C stops everything; the data stays.\n", highlight=False)
