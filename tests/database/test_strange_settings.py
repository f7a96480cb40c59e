"""Everything works where the database and its roles have settings that change what SQL means."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import pytest

from pgflows.config import Settings
from pgflows.database.migrations import migrate
from tests.acceptance.conftest import EFFECTS
from tests.conftest import OWNER, RUN, RUN_PASSWORD, Database, Spawn, until
from tests.conftest import _dsn as dsn_of
from tests.database.strange import alter, known
from tests.df.conftest import USER, make_roles, running_engine

# a caller whose session ends after less than a second, or by an error, could not wait for anything
CALLERS = {
    "idle_session_timeout": "0",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "exit_on_error": "off",
}
FIXED = """select current_setting('standard_conforming_strings') as c,
  current_setting('synchronous_commit') as s, current_setting('df.in_workflow') as w"""


@pytest.fixture
async def strange(server_dsn: str, template: str) -> AsyncIterator[Database]:
    """A database and roles with strange settings, migrated from nothing."""
    admin = await asyncpg.connect(server_dsn)
    name = f"strange_{os.getpid()}"
    await admin.execute(f"drop database if exists {name} with (force)")
    await admin.execute(f"create database {name} owner {OWNER}")
    settings = await known(admin)
    database = Database(
        name,
        dsn_of(server_dsn, OWNER, name),
        dsn_of(server_dsn, RUN, name, RUN_PASSWORD),
        dsn_of(server_dsn, "postgres", name),
    )
    await alter(admin, f"database {name}", settings)
    for role in (OWNER, RUN):
        await alter(admin, f"role {role} in database {name}", settings)
    await migrate(database.dsn, Settings(run_dsn=database.run_dsn))
    own = {k: v for k, v in CALLERS.items() if k in settings}
    await alter(admin, f"role postgres in database {name}", own)
    await make_roles(replace(database, dsn=database.admin_dsn))
    await alter(admin, f"role {USER} in database {name}", settings | own)
    yield database
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def completed(user: asyncpg.Connection[Any], instance: str) -> None:
    """Waits by looking: df.await_instance refuses to wait in a serializable transaction."""

    async def ended() -> str | None:
        status = await user.fetchval("select df.status($1)", instance)
        return status if status in ("completed", "failed", "cancelled") else None

    assert await until(ended) == "completed"


async def test_workflows_run_where_every_setting_is_strange(
    strange: Database, spawn: Spawn
) -> None:
    admin = await asyncpg.connect(strange.admin_dsn)
    await admin.execute(EFFECTS + f"; grant all on public.effects to {OWNER}")
    service = spawn(
        "serve",
        dsn=strange.dsn,
        PGFLOWS_RUN_DSN=strange.run_dsn,
        PGFLOWS_APP="tests.acceptance.deployment:app",
        EFFECTS_DSN=strange.admin_dsn,
    ).wait_until_ready(60)
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:

        async def run(n: int) -> dict[str, Any]:
            answer = await http.post(
                "/workflows/three/start?wait=20",
                json={"input": {"name": f"it's \\ {n}", "seconds": 1.5 if n == 0 else 0}},
                headers={"Idempotency-Key": f"key-{n % 20}"},
            )
            assert answer.status_code in (200, 201, 202), answer.text
            found: dict[str, Any] = answer.json()
            return found

        runs = await asyncio.gather(*(run(n % 20) for n in range(40)))
        instances = {r["instance_id"] for r in runs}
        assert len(instances) == 20
        found = [(await http.get(f"/instances/{i}")).json() for i in instances]
        assert {f["status"] for f in found} == {"completed"}
        assert {f["output"]["name"] for f in found} == {f"it's \\ {n}!" for n in range(20)}
        assert all(f["started_at"].endswith(("Z", "+00:00")) for f in found)
        history = (await http.get(f"/instances/{found[0]['instance_id']}/history")).json()
        assert [s["status"] for s in history["steps"]] == ["completed"] * 3
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/stats")).status_code == 200
        assert (await http.get("/metrics")).status_code == 200
    await admin.close()
    assert "Traceback" not in service.output()


async def test_sql_callers_with_strange_settings_start_and_read(strange: Database) -> None:
    admin = await asyncpg.connect(strange.admin_dsn)
    await admin.execute(
        "select pgflows.define('plain', '1', df.sql('select 1'), '{}', '{}', '{}', 'x'); "
        f"grant execute on function pgflows.start to {USER}; "
        f"grant usage on schema pgflows to {USER}"
    )
    user = await asyncpg.connect(strange.as_role(USER))
    graphs = {
        "select 1 as n, 0.1::float8 as f, 'a\\b' as t": [{"n": 1, "f": 0.1, "t": "a\\b"}],
        "select timestamptz '2024-01-02 03:04:05+00' as at": [{"at": "2024-01-02T03:04:05+00:00"}],
        "select date '2024-02-03' as d, current_setting('TimeZone') as z": [
            {"d": "2024-02-03", "z": "Asia/Kathmandu"}
        ],
        "select pg_sleep(1.2)": [{"pg_sleep": None}],
        FIXED: [{"c": "on", "s": "on", "w": "true"}],
    }
    async with running_engine(strange):
        for text, rows in graphs.items():
            for _ in range(3):  # the third time in one trip
                instance = await user.fetchval("select df.start($1, 'label')", text)
                await completed(user, instance)
                result = json.loads(await user.fetchval("select df.result($1)", instance))
                assert result["rows"] == rows
        for function in ("instance_nodes", "instance_executions", "instance_info"):
            assert await user.fetch(f"select * from df.{function}($1)", instance)  # noqa: S608
        assert await user.fetchval("select df.explain($1)", instance)
        assert len(await user.fetch("select * from df.list_instances(null, 3, 'label')")) == 3
        started = await user.fetchval("select pgflows.start('plain', '{}', 'key')")
        assert await user.fetchval("select pgflows.start('plain', '{}', 'key')") == started
        ended = (
            "select i.status = 'completed' from df.instances i "
            "join pgflows.df_runs r on r.df_id = i.id where r.instance_id = $1"
        )
        await until(lambda: admin.fetchval(ended, started))
    await user.close()
    await admin.close()


async def test_a_value_cannot_leave_its_literal_where_backslashes_are_escapes(
    strange: Database,
) -> None:
    """Captures are quoted by doubling quotes only."""
    user = await asyncpg.connect(strange.as_role(USER))
    await user.execute("create table corpus.kept (id int)")
    value = "\\'; drop table corpus.kept; --"
    graph = await user.fetchval(
        "select df.seq(df.as(df.sql($1), 'v'), df.sql('select $v as w'))",
        f"select E'{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(39) * 2)}' as v",
    )
    async with running_engine(strange):
        instance = await user.fetchval("select df.start($1)", graph)
        await completed(user, instance)
    result = json.loads(await user.fetchval("select df.result($1)", instance))
    assert result["rows"] == [{"w": value}]
    assert await user.fetchval("select count(*) from corpus.kept") == 0
    await user.close()
