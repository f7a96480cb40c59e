"""The commands that go over HTTP: start, status, history, list, cancel, export."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.markup import escape

from pgflows.cli.tables import (
    ENDED_BADLY,
    err,
    print_answer,
    print_history,
    print_instance,
    print_page,
)
from pgflows.client import Client
from pgflows.config import Settings
from pgflows.errors import InvalidRequest, PgflowsError, ServiceUnavailable, Unauthorized
from pgflows.messages import Status

T = TypeVar("T")

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="PGFLOWS_URL", help="The service; unset: the one on this machine"),
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="PGFLOWS_API_KEY", help="A key of the service")
]
Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON")]
InstanceArg = Annotated[str, typer.Argument(help="An instance_id, or the df_id of one of its runs")]

commands = typer.Typer()


@commands.command()
def start(
    workflow: Annotated[str, typer.Argument(help="A registered workflow")],
    input: Annotated[
        str, typer.Argument(help="The input as JSON, @file to read one, or - for standard input")
    ] = "{}",
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same one starts once")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A name to find the instance by")] = None,
    attributes: Annotated[str, typer.Option(help="A JSON object to keep with it")] = "{}",
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            max=300,
            help="Seconds to wait for its end; exit code 1 if it fails or is cancelled in them",
        ),
    ] = 0,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Start a workflow."""
    data, extra = _object(_read(input), "the input"), _object(attributes, "--attributes")
    instance = _ask(
        url,
        api_key,
        lambda client: client.start(
            workflow, data, idempotency_key=key, label=label, attributes=extra, wait=wait
        ),
    )
    print_answer(instance, as_json, print_instance)
    if wait and instance.status in ENDED_BADLY:
        raise typer.Exit(1)


@commands.command()
def status(
    instance: InstanceArg, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show how an instance stands."""
    print_answer(_ask(url, api_key, lambda client: client.get(instance)), as_json, print_instance)


@commands.command()
def history(
    instance: InstanceArg, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show the steps of an instance with their attempts."""
    print_answer(
        _ask(url, api_key, lambda client: client.history(instance)), as_json, print_history
    )


@commands.command("list")
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow's")] = None,
    status: Annotated[Status | None, typer.Option(help="Only with this status")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show at most")] = 20,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the page before")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """List instances, newest first."""
    page = _ask(
        url,
        api_key,
        lambda client: client.list(
            workflow=workflow,
            status=status,
            label=label,
            limit=limit,
            cursor=cursor,
        ),
    )
    print_answer(page, as_json, print_page)


@commands.command()
def cancel(
    instance: InstanceArg,
    reason: Annotated[str | None, typer.Option(help="Kept with the instance")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Cancel a live instance; one that has ended stays as it is."""
    found = _ask(url, api_key, lambda client: client.cancel(instance, reason))
    print_answer(found, as_json, print_instance)


@commands.command()
def export(
    workflow: Annotated[str, typer.Argument(help="A registered workflow")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print a workflow as SQL."""
    text = _ask(url, api_key, lambda client: client.export(workflow))
    if output is None:
        typer.echo(text.encode(), nl=False)  # the file of a redirection is UTF-8 too
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as e:
            raise _refused(InvalidRequest(f"{output} cannot be written: {e.strerror}")) from e
        err.print(f"wrote {escape(str(output))}")


def _ask(url: str | None, api_key: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    settings = Settings()
    key = api_key or next(iter(settings.api_keys), None)

    async def run() -> T:
        async with Client(url or settings.local_url, key) as client:
            return await question(client)

    try:
        return asyncio.run(run())
    except PgflowsError as e:
        raise _refused(e) from e


def _refused(error: PgflowsError) -> typer.Exit:
    err.print(f"[red]error:[/red] {escape(error.message)}")
    match error:
        case Unauthorized():
            hint = "give one of the service's API keys with --api-key, or set PGFLOWS_API_KEY"
        case ServiceUnavailable(__cause__=httpx.TransportError()):
            hint = "start it with `pgflows dev`, or name another with --url or PGFLOWS_URL"
        case _:
            hint = error.data.get("hint", "")
    if hint:
        err.print(f"[dim]{escape(str(hint))}[/dim]")
    return typer.Exit(1)


def _read(argument: str) -> str:
    try:
        if argument == "-":
            return sys.stdin.buffer.read().decode()
        if argument.startswith("@"):
            return Path(argument[1:]).read_text(encoding="utf-8")
    except OSError as e:
        raise _refused(InvalidRequest(f"{argument[1:]} cannot be read: {e.strerror}")) from e
    except UnicodeDecodeError as e:
        raise _refused(InvalidRequest(f"{argument} is not UTF-8: {e}")) from e
    return argument


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise _refused(InvalidRequest(f"{what} is not JSON: {e}")) from e
    if not isinstance(value, dict):
        raise _refused(InvalidRequest(f"{what} is a JSON {type(value).__name__}, not an object"))
    return value
