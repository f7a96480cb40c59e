"""The commands that look after a deployment: migrate, check, doctor, keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pgflows.cli.database import Dsn, check_connection, connection, find_database, require_database
from pgflows.cli.doctor import examine
from pgflows.config import Settings
from pgflows.database import connections as db
from pgflows.database.migrations import check_schema, print_sql
from pgflows.database.migrations import migrate as migrate_database
from pgflows.flow import compile_app
from pgflows.loading import load_app

T = TypeVar("T")
commands = typer.Typer()
console = Console(soft_wrap=True)
keys_app = typer.Typer(no_args_is_help=True, help="The keys that sign step calls.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]
commands.add_typer(keys_app, name="keys")
COLOURS = {"ok": "green", "warning": "yellow", "broken": "red"}


@commands.command()
def migrate(
    dsn: Dsn = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Only print the SQL, for a DBA to read or run")
    ] = False,
) -> None:
    """Bring the database up to date."""
    if print_:
        typer.echo(print_sql(), nl=False)
        return
    settings = Settings.given(dsn=dsn)
    address = require_database(settings)
    asyncio.run(check_connection(address))
    applied = asyncio.run(migrate_database(address, settings))
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("the database is up to date")


@commands.command()
def check(as_json: Json = False) -> None:
    """Compile every workflow; say what cannot be translated, and where."""
    settings = Settings()
    app = load_app(settings.app)
    flows = compile_app(app.registry)
    if as_json:
        typer.echo(json.dumps({"workflows": sorted(flows), "steps": sorted(app.steps)}))
    else:
        workflows, steps = _counted(len(flows), "workflow"), _counted(len(app.steps), "step")
        typer.echo(f"{workflows} and {steps}: all in order")


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@commands.command()
def doctor(dsn: Dsn = None, as_json: Json = False) -> None:
    """What this server can do, and what to do about what it cannot; exit code 1 if broken."""
    settings = Settings.given(dsn=dsn)
    findings = asyncio.run(examine(find_database(settings), settings))
    if as_json:
        typer.echo(json.dumps([f.as_dict() for f in findings], indent=2))
    else:
        for f in findings:
            mark = f"[{COLOURS[f.verdict]}]{f.verdict:<7}[/]"
            console.print(f"{mark}  {escape(f.what)}: {escape(f.found)}", highlight=False)
            if f.advice:
                console.print(f"         {escape(f.advice)}", style="dim", highlight=False)
    if any(f.verdict == "broken" for f in findings):
        raise typer.Exit(1)


@keys_app.command("list")
def list_keys(dsn: Dsn = None, as_json: Json = False) -> None:
    """The keys, newest first; the one without an end signs."""
    rows = _ask(
        require_database(Settings.given(dsn=dsn)),
        lambda c: c.fetch("select * from pgflows.list_keys()"),
    )
    found = [
        {
            k: v if v is None or isinstance(v, str) else v.isoformat(timespec="seconds")
            for k, v in r.items()
        }
        for r in rows
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("key", "created", "retired")
    for row in found:
        table.add_row(row["key_id"], row["created_at"], row["retired_at"] or "")
    console.print(table)


@keys_app.command("rotate")
def rotate_key(dsn: Dsn = None) -> None:
    """A new key signs from now on; calls that were signed before stay good."""
    name = _ask(
        require_database(Settings.given(dsn=dsn)),
        lambda c: c.fetchval("select pgflows.rotate_key()"),
    )
    typer.echo(f"key {name} signs now")


def _ask(dsn: str, question: Callable[[db.Connection], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with connection(dsn) as conn:
            await check_schema(conn)
            return await question(conn)

    return asyncio.run(ask())
