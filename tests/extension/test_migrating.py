"""Migrating beside the extension, away from it and to it, and what `pgflows doctor` says there."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from pgflows.cli.doctor import Finding, examine
from pgflows.config import Settings
from pgflows.database.migrations import check_schema, migrate
from pgflows.errors import MigrationError, SetupError
from tests.conftest import ON_THE_EXTENSION, Database
from tests.extension.conftest import OWNER, let_in
from tests.extension.stand_in import install

FAILED = """
insert into pgflows.instances (instance_id, workflow, version, status, input, error, started_by)
values (pgflows.uuid7(), 'x', '1', 'failed', '{}', '{"type": "FlowFailed",
  "message": "Blocked: requests to bare IP addresses are not permitted."}', 'x')
"""


DONE_LATER = """
insert into pgflows.step_runs (instance_id, step_key, step, seq, key_id, input, status, ended_at)
values (pgflows.uuid7(), 's#1', 's', 1, 'k', '{}', 'completed', clock_timestamp())
"""


@pytest.fixture(params=["stand_in", pytest.param("real", marks=ON_THE_EXTENSION)])
def strange(request: pytest.FixtureRequest) -> Database:
    """A database with the extension, or its stand-in; nobody has let the owner in."""
    found: Database = request.getfixturevalue(request.param)
    if request.param == "real":
        asyncio.run(order(found, f"drop owned by {OWNER} cascade"))
    return found


async def order(database: Database, *statements: str) -> None:
    conn = await asyncpg.connect(database.admin_dsn)
    for statement in statements:
        await conn.execute(statement)
    await conn.close()


async def value(database: Database, statement: str) -> Any:
    conn = await asyncpg.connect(database.admin_dsn)
    try:
        return await conn.fetchval(statement)
    finally:
        await conn.close()


async def findings(database: Database) -> dict[str, Finding]:
    found = await examine(database.dsn, Settings(run_dsn=database.run_dsn))
    return {f.what: f for f in found}


async def test_migrate_beside_the_extension_prints_what_a_dba_runs_and_then_works(
    strange: Database,
) -> None:
    settings = Settings(run_dsn=strange.run_dsn)
    with pytest.raises(SetupError, match="Nothing was changed") as e:
        await migrate(strange.dsn, settings)
    assert await value(strange, "select to_regnamespace('pgflows')") is None
    statements = [s for s in e.value.message.splitlines() if s.startswith("  ")]
    assert any(f"df.grant_usage('{OWNER}', include_http => true" in s for s in statements)
    assert any("grant create on database" in s for s in statements)
    assert " ".join(statements).split() == (await findings(strange))["role"].advice.split()[3:]
    await order(strange, *statements)
    assert await migrate(strange.dsn, settings)
    assert await migrate(strange.dsn, settings) == []
    may_call = (
        "select has_function_privilege('pgflows_run', oid, 'execute') from pg_proc "
        "where pronamespace = 'df'::regnamespace and proname = 'http'"
    )
    assert await value(strange, may_call)


async def test_doctor_beside_the_extension_names_it_and_ends_without_an_error(
    strange: Database,
) -> None:
    await let_in(strange)
    await migrate(strange.dsn, Settings(run_dsn=strange.run_dsn))
    found = await findings(strange)
    assert found["orchestrator"].verdict == "ok"
    assert "pg_durable 0.2.6" in found["orchestrator"].found
    assert found["calls of steps"].found == "none was made yet"
    assert "cannot be looked at" not in " ".join(f.found for f in found.values())
    await order(strange, FAILED)
    found = await findings(strange)
    assert found["calls of steps"].verdict == "broken"
    assert "bare IP addresses" in found["calls of steps"].found
    await order(strange, DONE_LATER)
    assert (await findings(strange))["calls of steps"].verdict == "ok"


async def test_pending_run_is_read_beside_the_extension(stand_in: Database) -> None:
    await let_in(stand_in)
    await migrate(stand_in.dsn, Settings(run_dsn=stand_in.run_dsn))
    await order(stand_in, FAILED.replace("'failed'", "'pending'"))
    shown = "select pgflows.get_instance(instance_id::text) ->> 'status' from pgflows.instances"
    assert await value(stand_in, shown) == "pending"


async def test_worker_that_serves_another_database_is_found_before_anything_is_changed(
    stand_in: Database,
) -> None:
    await let_in(stand_in)
    await order(
        stand_in,
        "create or replace function df.target_database() returns text language sql "
        "as $$ select 'elsewhere'::text $$",
    )
    with pytest.raises(SetupError, match="serves the database elsewhere"):
        await migrate(stand_in.dsn, Settings(run_dsn=stand_in.run_dsn))
    assert await value(stand_in, "select to_regnamespace('pgflows')") is None


async def test_worker_that_was_moved_to_another_database_is_told_by_doctor(
    stand_in: Database,
) -> None:
    await let_in(stand_in)
    await migrate(stand_in.dsn, Settings(run_dsn=stand_in.run_dsn))
    await order(
        stand_in,
        "create or replace function df.target_database() returns text language sql "
        "as $$ select 'elsewhere'::text $$",
    )
    found = await findings(stand_in)
    assert found["orchestrator"].verdict == "broken"
    assert "serves the database elsewhere" in found["orchestrator"].advice


async def test_database_that_changes_to_the_extension_and_back_is_migrated_both_ways(
    database: Database,
) -> None:
    settings = Settings(run_dsn=database.run_dsn)
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(
        "select pgflows.define('w', '1', df.sql('select 1'), '{}', '{}', '{}', 'none')"
    )
    prepared = "select prepared is not null from pgflows.workflows"
    assert await value(database, prepared)
    await order(database, "drop schema df cascade")
    await install(database.admin_dsn)
    owner = await conn.fetchval("select current_user")
    await order(
        database, f"select df.grant_usage('{owner}', include_http => true, with_grant => true)"
    )
    with pytest.raises(MigrationError, match="lacks functions/"):
        await check_schema(conn)
    assert not [n for n in await migrate(database.dsn, settings) if n.startswith("df/")]
    assert await migrate(database.dsn, settings) == []
    await check_schema(conn)
    assert await value(database, prepared) is False
    await remove(database)
    with pytest.raises(MigrationError, match="lacks migrations/0001_df"):
        await check_schema(conn)
    assert "df/05_rights.sql" in await migrate(database.dsn, settings)
    assert await migrate(database.dsn, settings) == []
    await check_schema(conn)
    assert await value(database, prepared)
    await conn.close()


async def remove(database: Database) -> None:
    """Takes the stand-in away, as `drop extension` takes the extension."""
    await order(
        database,
        "set allow_system_table_mods = on",
        "delete from pg_extension where extname = 'pg_durable'",
        "drop schema df cascade",
    )
