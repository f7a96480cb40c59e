"""Plays flows on two servers and prints where they differ: status, result, and the trail of nodes.

    python -m tests.conformance.differential DSN DSN -g "df.seq('select 1', df.sleep(0))" -g …
    python -m tests.conformance.differential DSN DSN --app shop:app --steps URL URL

A graph is an SQL expression. Of an app every workflow is defined on both servers and started with
the input of its export; the steps are called at one URL for each server, where the app is served
for that database. Ids, times and what is signed with them are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg

from pgflows.app import WorkflowApp
from pgflows.database.connections import Connection
from pgflows.flow import Rendered, compile_app, render
from pgflows.flow.sample import sample
from pgflows.loading import load_app
from tests.conformance.corpus.recorder import Record, Recorder

HERE = "http://127.0.0.1:8000"
MASKS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"[0-9a-f]{64}"), "SIGNATURE"),
)


async def play_graphs(dsn: str, graphs: Sequence[str]) -> dict[str, Record]:
    """What became of each graph; one that is refused shows its error."""
    records = await Recorder(dsn, "@PEER@").record({"name": g, "flow": g} for g in graphs)
    return {name: _masked(record, None) for name, record in records.items()}


async def play_app(dsn: str, app: WorkflowApp, steps: str) -> dict[str, Record]:
    """What became of one run of each of the app's workflows."""
    conn = await asyncpg.connect(dsn)
    recorder, records = Recorder(dsn, "@PEER@"), {}
    try:
        for flow in compile_app(app.registry).values():
            rendered = render(flow, base_url=steps, step_timeout=app.step_timeout)
            await _define(conn, rendered)
            given = json.dumps(sample(app.workflows[rendered.name].input_model))
            start = "select pgflows.start($1, $2::jsonb)"
            instance = await conn.fetchval(start, rendered.name, given)
            run = await conn.fetchval("select pgflows._current_run($1)", instance)
            records[rendered.name] = _masked(await recorder.watch(conn, run), steps)
    finally:
        await conn.close()
    return records


async def _define(conn: Connection, rendered: Rendered) -> None:
    documents = (rendered.definition, rendered.input_schema, rendered.output_schema)
    await conn.execute(
        f"select pgflows.define($1, $2, {rendered.graph}, $3::jsonb, $4::jsonb, $5::jsonb, $6)",
        rendered.name,
        rendered.version,
        *map(json.dumps, documents),
        rendered.checksum,
    )


def _masked(record: Record, steps: str | None) -> Record:
    text = json.dumps(record)
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    found: Record = json.loads(text.replace(steps, "@STEPS@") if steps else text)
    return found


def differences(one: dict[str, Record], other: dict[str, Record]) -> Iterator[str]:
    """Lines like those of diff, for the flows that do not agree."""
    for name in one:
        if one[name] != other[name]:
            yield f"=== {name}"
            yield from difflib.unified_diff(
                _lines(one[name]), _lines(other[name]), "one", "other", n=4, lineterm=""
            )


def _lines(record: Record) -> list[str]:
    return json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True).split("\n")


async def compare(given: argparse.Namespace) -> int:
    """Prints the differences; how many flows were played."""
    both: list[dict[str, Record]] = [{}, {}]
    app: Any = load_app(given.app) if given.app else None
    for dsn, steps, records in zip(given.dsn, given.steps, both, strict=True):
        records |= await play_graphs(dsn, given.graph)
        if app is not None:
            records |= await play_app(dsn, app, steps)
    found = list(differences(*both))
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"{len(both[0])} flows, {'different' if found else 'no difference'}\n")
    return 1 if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare what two servers do with the same flows.")
    parser.add_argument("dsn", nargs=2, help="where df.start may be called")
    parser.add_argument("-g", "--graph", action="append", default=[], help="an SQL expression")
    parser.add_argument("--app", help="module:attribute of a WorkflowApp")
    parser.add_argument("--steps", nargs=2, default=[HERE, HERE], help="where its steps are served")
    return asyncio.run(compare(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
