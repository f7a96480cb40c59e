"""The command line: `pgflows COMMAND`.

The module of a command is imported when the command is called, so that a question to a service
does not wait for what an engine needs. An error of pgflows ends as one message and exit code 1;
anything else is a bug.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from typer.core import TyperGroup

from pgflows.config import Settings
from pgflows.errors import PgflowsError

log = logging.getLogger("pgflows.cli")
OTHER_VARIABLES = {"PGFLOWS_LOG_LEVEL", "PGFLOWS_URL", "PGFLOWS_API_KEY"}

MODULES = {
    "dev": "serving",
    "serve": "serving",
    "engine": "engine",
    "demo": "demo",
    "migrate": "maintenance",
    "check": "maintenance",
    "doctor": "maintenance",
    "keys": "maintenance",
    "start": "remote",
    "status": "remote",
    "history": "remote",
    "list": "remote",
    "cancel": "remote",
    "export": "remote",
}
"""The module of `pgflows.cli` in which each command is, in the order of `pgflows --help`."""


class Commands(TyperGroup):
    """Finds a command by importing its module, which has a Typer named `commands`."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # the same class
        return list(MODULES)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name not in MODULES:
            return None
        commands = import_module(f"pgflows.cli.{MODULES[cmd_name]}").commands
        return typer.main.get_group(commands).get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Commands,
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
        log.warning("%s is not a setting and has no effect; did you mean %s?", name, meant)


def misspelt(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each variable that is probably a misspelt setting, with the setting that was meant."""
    known = {f"PGFLOWS_{field.upper()}" for field in Settings.model_fields} | OTHER_VARIABLES
    for name in sorted(environment):
        if name.startswith("PGFLOWS_") and name not in known:
            for meant in get_close_matches(name, known, 1, 0.85):
                yield name, meant


def _print_anything() -> None:
    """A terminal that is not UTF-8 shows what it cannot print as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """The entry point `pgflows`."""
    _print_anything()
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
