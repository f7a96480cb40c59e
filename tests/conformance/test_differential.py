"""Two databases of ours give no difference, and a planted one is found."""

from __future__ import annotations

import asyncio

import pytest

from pgflows.database.connections import Connection
from tests.conformance.conftest import Stage
from tests.conformance.differential import main
from tests.conftest import Database
from tests.df.conftest import USER, running_engine

pytestmark = pytest.mark.ours("it compares two databases of ours")

GRAPHS = [
    "df.seq(df.as('select 1 as n', 'a'), 'select $a + 1 as n')",
    "df.join('select 1', df.if('select false', 'select 2', 'select 1/0'))",
    "df.race('select 1', df.sleep(600))",
    "df.seq('select 0', df.loop(df.break('[1]')))",
    "df.as('select 1', 'refused-name')",
    "df.sql('select ''{sys_instance_id}'' as i, clock_timestamp() as t')",
]


async def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = await asyncio.to_thread(main, arguments)
    return code, capsys.readouterr().out


async def test_graphs(
    stage: Stage,
    actor: Connection,
    user: Connection,
    database: Database,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = [d.as_role(USER) for d in (stage.database, database)]
    asked = [word for graph in GRAPHS for word in ("-g", graph)]
    for n, conn in enumerate((actor, user)):
        await conn.execute(f"create or replace view corpus.planted as select {n} as n")
    async with running_engine(database):
        assert await run(capsys, *both, *asked) == (0, f"{len(GRAPHS)} flows, no difference\n")
        planted = "df.seq('select n from corpus.planted', 'select 1')"
        code, told = await run(capsys, *both, *asked, "-g", planted)
    assert code == 1
    assert [line for line in told.split("\n") if line.startswith("===")] == [f"=== {planted}"]
    changed = [line for line in told.split("\n") if line.startswith(("+ ", "- "))]
    assert len(changed) == 2
    assert '\\"n\\": 0' in changed[0]
    assert '\\"n\\": 1' in changed[1]


async def test_workflows_of_an_app(
    stage: Stage, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [stage.database.dsn, database.dsn]
    app = "tests.conformance.stepless:app"
    async with running_engine(database):
        assert await run(capsys, *both, "--app", app) == (0, "2 flows, no difference\n")
