"""Each workflow of `flows.py` renders to the file of its name; UPDATE_GOLDEN=1 writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pglast
import pytest
from pglast.visitors import Visitor

from pgflows.compiled import parse
from pgflows.flow import Rendered, compile_app, export_sql, render
from tests.golden.flows import app

FLOWS = compile_app(app.registry)
HERE = Path(__file__).parent


def rendered(name: str) -> Rendered:
    return render(FLOWS[name], base_url="http://my-app:8000", step_timeout=app.step_timeout)


def calls(sql: str) -> Iterator[tuple[str, Any]]:
    """Every function call in the text, as PostgreSQL's parser reads it."""
    found: list[tuple[str, Any]] = []

    class Calls(Visitor):
        def visit_FuncCall(self, ancestors: Any, node: Any) -> None:
            found.append((".".join(part.sval for part in node.funcname), node.args))

    Calls()(pglast.parse_sql(sql))
    yield from found


@pytest.mark.parametrize("name", list(FLOWS))
def test_the_sql_of_a_workflow_is_the_one_on_file(name: str) -> None:
    file = HERE / f"{name}.sql"
    text = export_sql(FLOWS[name].workflow, rendered(name))
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", list(FLOWS))
def test_the_graph_and_every_query_in_it_parse(name: str) -> None:
    nodes = list(calls(f"select {rendered(name).graph}"))
    assert {function for function, _ in nodes} <= {"df.seq", "df.as", "df.sql", "df.http"}
    queries = [args[0].val.sval for function, args in nodes if function == "df.sql"]
    assert len(queries) == len(list(FLOWS[name].calls())) + 1
    for query in queries:
        assert query.startswith("/*pgflows*/ with s0 as materialized (select pgflows.take(")
        filled = query.replace("{sys_instance_id}", "0000000a").replace("$e.seq", "1")
        assert not re.search(r"[{$]", filled)
        functions = {function for function, _ in calls(filled)}
        assert functions & {"pgflows.put", "pgflows.finish"}


@pytest.mark.parametrize("name", list(FLOWS))
def test_an_engine_runs_the_queries_of_many_runs_at_once(name: str) -> None:
    nodes = calls(f"select {rendered(name).graph}")
    for query in [args[0].val.sval for function, args in nodes if function == "df.sql"]:
        node = parse(query)
        assert node is not None
        prepared = node.prepared()
        assert prepared.capture == ("e" if "$e.seq" in query else None)
        one = {function for function, _ in calls(f"prepare x {prepared.one}")}
        each = {function for function, _ in calls(f"prepare x {prepared.each}")}
        made = {f for f in one if f.startswith("pgflows.")}
        assert {f for f in each if f.startswith("pgflows.")} == {f"{f}_each" for f in made}


@pytest.mark.parametrize("name", list(FLOWS))
def test_the_exported_file_is_two_statements_of_sql(name: str) -> None:
    text = export_sql(FLOWS[name].workflow, rendered(name))
    sql = re.sub(r"(?m)^ *\\.*$", "", text).replace(":'input'", "'{}'")
    kinds = [type(part.stmt).__name__ for part in pglast.parse_sql(sql)]
    assert kinds == ["TransactionStmt", "SelectStmt", "SelectStmt", "TransactionStmt"]


def test_the_tree_is_as_flat_as_can_be() -> None:
    def depth(sql: str) -> int:
        level = deepest = 0
        for part in re.findall(r"df\.seq\(|\(|\)", re.sub(r"'(?:[^']|'')*'", "", sql)):
            level += -1 if part == ")" else 1
            deepest = max(deepest, level)
        return deepest

    # 15 nodes are four levels of df.seq, then df.as(df.sql(…))
    assert depth(rendered("many_steps").graph) == 6


def test_the_checksum_changes_with_what_is_rendered_and_with_nothing_else() -> None:
    first = rendered("paths").checksum
    assert first == rendered("paths").checksum
    moved = render(FLOWS["paths"], base_url="http://elsewhere", step_timeout=app.step_timeout)
    slower = render(FLOWS["paths"], base_url="http://my-app:8000", step_timeout=lambda step: 99)
    assert len({first, moved.checksum, slower.checksum}) == 3
