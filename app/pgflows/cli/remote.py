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
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pgflows.client import Client
from pgflows.config import Settings
from pgflows.errors import InvalidRequest, PgflowsError, ServiceUnavailable, Unauthorized
from pgflows.messages import History, Instance, InstancePage, InstanceSummary, Status

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

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "pending": "dim",
    "requested": "dim",
}

ENDED_BADLY = ("failed", "cancelled")
WIDE = 110  # columns of a terminal that holds a whole list
_COLUMNS = ("instance", "status", "workflow", "label", "created", "seconds", "df")
_NARROWEST = {"instance": 36, "status": 9, "created": 11, "seconds": 7, "df": 8}  # others may fold

out = Console()
err = Console(stderr=True, soft_wrap=True, highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (start, status, history, list_, cancel, export):
        app.command(command.__name__.rstrip("_"))(command)


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
    _show(instance, as_json, _print_instance)
    if wait and instance.status in ENDED_BADLY:
        raise typer.Exit(1)


def status(
    instance: InstanceArg, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show how an instance stands."""
    _show(_ask(url, api_key, lambda client: client.get(instance)), as_json, _print_instance)


def history(
    instance: InstanceArg, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show the steps of an instance with their attempts."""
    _show(_ask(url, api_key, lambda client: client.history(instance)), as_json, _print_history)


def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow's")] = None,
    status: Annotated[Status | None, typer.Option(help="Only with this status")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many")] = 20,
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
    _show(page, as_json, _print_page)


def cancel(
    instance: InstanceArg,
    reason: Annotated[str | None, typer.Option(help="Kept with the instance")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Cancel a live instance; one that has ended stays as it is."""
    found = _ask(url, api_key, lambda client: client.cancel(instance, reason))
    _show(found, as_json, _print_instance)


def export(
    workflow: Annotated[str, typer.Argument(help="A registered workflow")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print a workflow as SQL."""
    text = _ask(url, api_key, lambda client: client.export(workflow))
    if output is None:
        typer.echo(text, nl=False)
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
            return sys.stdin.read()
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
    except ValueError as e:
        raise _refused(InvalidRequest(f"{what} is not JSON: {e}")) from e
    if not isinstance(value, dict):
        raise _refused(InvalidRequest(f"{what} is a JSON {type(value).__name__}, not an object"))
    return value


M = TypeVar("M", bound=BaseModel)


def _show(answer: M, as_json: bool, show: Callable[[M], None]) -> None:
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
        return
    if not out.is_terminal:
        out.width = 1000  # a pipe gets whole lines
    show(answer)


def _coloured(status: str) -> str:
    return f"[{_COLOURS[status]}]{status}[/]"


def _compact(value: object) -> str:
    return escape(json.dumps(value, ensure_ascii=False))


def _print_instance(instance: Instance) -> None:
    rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows.add_row("instance", f"{instance.instance_id}  [dim]df {instance.df_id}[/dim]")
    rows.add_row(
        "workflow", f"{escape(instance.workflow)}  [dim]version {escape(instance.version)}[/dim]"
    )
    rows.add_row("status", _coloured(instance.status))
    if instance.label is not None:
        rows.add_row("label", escape(instance.label))
    rows.add_row("input", _compact(instance.input))
    if instance.output is not None:
        rows.add_row("output", _compact(instance.output))
    if instance.error is not None:
        rows.add_row("error", f"[red]{_compact(instance.error)}[/red]")
    rows.add_row("created", f"{instance.created_at:%Y-%m-%d %H:%M:%S %Z}")
    if instance.ended_at is not None:
        seconds = (instance.ended_at - instance.created_at).total_seconds()
        rows.add_row("took", f"{seconds:.3f} s")
    out.print(rows)


def _print_history(history: History) -> None:
    _print_instance(history)
    steps = Table("n", "step", "status", "attempts", "ms", "output or error")
    for step in history.steps:
        found = step.output if step.error is None else step.error
        steps.add_row(
            str(step.n),
            escape(step.step_key),
            _coloured(step.status),
            str(step.attempt_count),
            "" if step.duration_ms is None else f"{step.duration_ms:.1f}",
            "" if found is None else _compact(found),
        )
        for attempt in step.attempts:
            if attempt.error_type is not None:
                text = f"attempt {attempt.attempt}: {attempt.error_type}: {attempt.message}"
                steps.add_row(
                    "", "", "", "", f"{attempt.duration_ms:.1f}", f"[red]{escape(text)}[/red]"
                )
    out.print(steps)


def _print_page(page: InstancePage) -> None:
    """All columns where there is room for them, else what 80 characters hold."""
    if not page.instances:
        err.print("no instances")
        return
    whole = out.width >= WIDE
    rows = [_row(instance, whole) for instance in page.instances]
    left_out = set() if any(row["label"] for row in rows) else {"label"}
    left_out |= set() if whole else {"seconds", "df"}
    shown = [name for name in _COLUMNS if name not in left_out]
    columns = [Column(name, overflow="fold", min_width=_NARROWEST.get(name)) for name in shown]
    table = Table(*columns, box=None, padding=(0, 2 if whole else 1, 0, 0))
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    out.print(table)
    if page.next_cursor is not None:
        out.print(f"[dim]more: --cursor {page.next_cursor}[/dim]", soft_wrap=True)


def _row(instance: InstanceSummary, whole: bool) -> dict[str, str]:
    ended, created = instance.ended_at, instance.created_at
    return {
        "instance": str(instance.instance_id),
        "status": _coloured(instance.status),
        "workflow": escape(instance.workflow),
        "label": escape(instance.label or ""),
        "created": f"{created:%Y-%m-%d %H:%M:%S}" if whole else f"{created:%m-%d %H:%M}",
        "seconds": f"{(ended - created).total_seconds():.3f}" if ended else "",
        "df": instance.df_id or "",
    }
