"""The commands that serve: dev, which brings everything along, and serve."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pgflows.app import WorkflowApp
from pgflows.cli.database import Dsn, check_connection, require_database
from pgflows.cli.hosting import listener, run_service
from pgflows.cli.process import leave
from pgflows.cli.waiting import until_served
from pgflows.config import Settings, is_loopback
from pgflows.database.dsn import shown
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from pgflows.errors import ServerError, SetupError
from pgflows.flow import sample
from pgflows.loading import load_app

commands = typer.Typer()
console = Console(soft_wrap=True)

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; unset: PGFLOWS_HOST, or 127.0.0.1")
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on; unset: PGFLOWS_PORT, or 8000"),
]
OwnDsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        help="The database; unset: PGFLOWS_DSN, or else an embedded server, started here",
        show_default=False,
    ),
]


@commands.command()
def dev(dsn: OwnDsn = None, host: Host = None, port: Port = None) -> None:
    """PostgreSQL, migrations, the service and an engine, all in one."""
    settings = Settings.given(dsn=dsn, host=host, port=port)
    _check_exposure(settings)
    app = load_app(settings.app)
    with listener(settings) as taken, _database(settings) as (address, to_show):
        settings = settings.model_copy(update={"port": taken.getsockname()[1]})
        asyncio.run(until_served(lambda: migrate(address, settings)))

        def opened() -> None:
            _welcome(settings, to_show, app)

        run_service(app, settings, address, taken, opened, with_engine=True)
    leave()


@commands.command()
def serve(
    dsn: Dsn = None,
    host: Host = None,
    port: Port = None,
    engine: Annotated[bool, typer.Option(help="Run an engine in this process too")] = True,
) -> None:
    """The service: control API and steps, on a migrated database."""
    settings = Settings.given(dsn=dsn, host=host, port=port)
    _check_exposure(settings)
    app = load_app(settings.app)
    address = require_database(settings)
    with listener(settings) as taken:
        settings = settings.model_copy(update={"port": taken.getsockname()[1]})
        asyncio.run(until_served(lambda: check_connection(address)))

        def opened() -> None:
            console.print(f"pgflows is at {settings.local_url}")

        run_service(app, settings, address, taken, opened, with_engine=engine)
    leave()


def _check_exposure(settings: Settings) -> None:
    """Closed unless opened: beyond loopback only with API keys."""
    local = settings.host == "localhost" or is_loopback(settings.host)
    if not local and not settings.api_keys:
        raise SetupError(
            f"refusing to listen on {settings.host} without API keys: set PGFLOWS_API_KEYS, or "
            "listen on 127.0.0.1"
        )
    if settings.listens_anywhere and settings.base_url is None:
        raise SetupError(
            f"{settings.host} is not an address that an engine could call: set PGFLOWS_BASE_URL to "
            "where the steps are reached, as http://pgflows.internal:8000"
        )


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, str]]:
    """The DSN for us and the one to show: the given database, or the embedded one."""
    if settings.dsn:
        address = settings.dsn
        asyncio.run(until_served(lambda: check_connection(address)))
        yield address, shown(address)
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
        try:
            address = server.start()
            yield address, server.dsn
        finally:
            server.stop()


def _welcome(settings: Settings, dsn: str, app: WorkflowApp) -> None:
    url = settings.local_url
    for line in (
        "",
        f"pgflows is at {url} (API: {url}/docs)",
        f'PostgreSQL:   psql "{dsn}"',
        "",
        *_to_try(settings, app),
        "",
        "Ctrl-C stops everything; the data stays.",
        "",
    ):
        console.print(line, highlight=False, markup=False)


def _to_try(settings: Settings, app: WorkflowApp) -> list[str]:
    """Commands to copy, with an input that fits the workflow."""
    if not app.workflows:
        package = settings.app.partition(":")[0]
        return [f"There is no workflow yet: write one in a module of the package {package}."]
    name = "process_order" if "process_order" in app.workflows else next(iter(app.workflows))
    url = settings.local_url
    body = shlex.quote(json.dumps({"input": sample(app.workflows[name].input_model)}))
    key = " -H 'Authorization: Bearer KEY'" if settings.api_keys else ""
    return [
        "Try:",
        f"  curl -s -X POST '{url}/workflows/{name}/start?wait=10'{key} "
        f"-H 'Content-Type: application/json' -d {body}",
        f"  curl -s{key} {url}/instances",
        f"  curl -s{key} {url}/export/{name}.sql",
    ]
