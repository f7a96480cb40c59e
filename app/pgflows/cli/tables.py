"""How the commands show what a service answered: as tables for people, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pgflows.messages import History, Instance, InstancePage, InstanceSummary

M = TypeVar("M", bound=BaseModel)

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


def print_answer(answer: M, as_json: bool, draw: Callable[[M], None]) -> None:
    """Prints the answer as `draw` does, or as JSON: in ASCII if the terminal is not UTF-8."""
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, ensure_ascii=not _prints_unicode()))
        return
    if not out.is_terminal:
        out.width = 1000  # a pipe gets whole lines
    draw(answer)


def _prints_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _coloured(status: str) -> str:
    return f"[{_COLOURS[status]}]{status}[/]"


def _compact(value: object) -> str:
    return escape(json.dumps(value, ensure_ascii=False))


def print_instance(instance: Instance) -> None:
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


def print_history(history: History) -> None:
    print_instance(history)
    steps = Table("seq", "step", "status", "attempts", "ms", "output or error")
    for step in history.steps:
        found = step.output if step.error is None else step.error
        steps.add_row(
            str(step.seq),
            escape(step.step_key),
            _coloured(step.status),
            str(step.attempt_count),
            "" if step.duration_ms is None else f"{step.duration_ms:.1f}",
            "" if found is None else _compact(found),
        )
        if step.waiting is not None:
            text = f"called {step.waiting.tries} times in vain: {step.waiting.reason}"
            steps.add_row("", "", "", "", "", f"[yellow]{escape(text)}[/yellow]")
        for attempt in step.attempts:
            if attempt.error_type is not None:
                text = f"attempt {attempt.attempt}: {attempt.error_type}: {attempt.message}"
                steps.add_row(
                    "", "", "", "", f"{attempt.duration_ms:.1f}", f"[red]{escape(text)}[/red]"
                )
    out.print(steps)


def print_page(page: InstancePage) -> None:
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
