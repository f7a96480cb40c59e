"""The command line. Errors of ours end as one message and exit code 1; anything else is a bug."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from pgflows.cli import local, maintenance, remote
from pgflows.config import Settings
from pgflows.errors import PgflowsError

log = logging.getLogger("pgflows.cli")
OTHER_VARIABLES = {"PGFLOWS_LOG_LEVEL", "PGFLOWS_URL", "PGFLOWS_API_KEY"}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Durable workflows on the PostgreSQL you already have.",
)


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pgflows {version('pgflows')}")
        raise typer.Exit


@app.callback()
def _options(
    log_level: Annotated[
        LogLevel, typer.Option(envvar="PGFLOWS_LOG_LEVEL", case_sensitive=False)
    ] = LogLevel.INFO,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and exit"),
    ] = False,
) -> None:
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if log_level is not LogLevel.DEBUG:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request
    for name, meant in misspelt(os.environ):
        log.warning("%s is no setting and does nothing; did you mean %s?", name, meant)


def misspelt(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Variables that look like a setting of ours but for a letter or two, and that setting."""
    known = {f"PGFLOWS_{field.upper()}" for field in Settings.model_fields} | OTHER_VARIABLES
    for name in sorted(environment):
        if name.startswith("PGFLOWS_") and name not in known:
            for meant in get_close_matches(name, known, 1, 0.85):
                yield name, meant


local.register(app)
maintenance.register(app)
remote.register(app)


def main() -> None:
    """The entry point `pgflows`."""
    error = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except PgflowsError as e:
        error.print("error:", e.message, style="red", markup=False, highlight=False)
        sys.exit(1)
    except ValidationError as e:
        if e.title != "Settings":
            raise
        for problem in e.errors():
            name = "_".join(map(str, problem["loc"])).upper()
            text = problem["msg"].removeprefix("Value error, ")
            error.print(
                f"error: PGFLOWS_{name}: {text}", style="red", markup=False, highlight=False
            )
        sys.exit(1)
    except BrokenPipeError:
        os._exit(1)
