"""What a role's own settings forbid fails its node, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import pytest

from tests.conftest import Database
from tests.database.strange import alter
from tests.df.conftest import USER, make_roles, running_engine

Connection: TypeAlias = "asyncpg.Connection[Any]"


@pytest.fixture
async def user(database: Database) -> AsyncIterator[Connection]:
    """A session of a role that was opened before the test gives the role other settings."""
    await make_roles(database)
    conn = await asyncpg.connect(database.as_role(USER))
    await conn.execute("create table corpus.kept (id int)")
    yield conn
    await conn.close()


async def limit(database: Database, settings: dict[str, str]) -> None:
    admin = await asyncpg.connect(database.admin_dsn)
    await alter(admin, f"role {USER} in database {database.name}", settings)
    await admin.close()


async def run(user: Connection, graph: str) -> tuple[str, Any, str]:
    instance = await user.fetchval("select df.start($1)", graph)
    status = await user.fetchval("select df.await_instance($1, 25)", instance)
    result = await user.fetchval("select df.result($1)", instance)
    output = await user.fetchval("select output from df.instance_info($1)", instance)
    return status, result and json.loads(result)["rows"], output or ""


async def test_a_role_that_may_only_read_runs_nodes_that_read(
    database: Database, user: Connection
) -> None:
    await limit(database, {"default_transaction_read_only": "on"})
    async with running_engine(database):
        for _ in range(3):  # the third time in one round trip
            status, rows, _ = await run(user, "select 1 as a")
            assert (status, rows) == ("completed", [{"a": 1}])
        status, _, output = await run(user, "insert into corpus.kept values (1)")
    assert status == "failed"
    assert "read-only transaction" in output
    assert await user.fetchval("select count(*) from corpus.kept") == 0


async def test_a_role_that_cuts_its_statements_short_fails_its_node(
    database: Database, user: Connection
) -> None:
    await limit(database, {"statement_timeout": "300ms"})
    async with running_engine(database):
        status, _, output = await run(user, "select pg_sleep(20)")
    assert status == "failed"
    assert "statement timeout" in output


async def test_a_role_that_cuts_its_transactions_short_fails_its_node(
    database: Database, user: Connection
) -> None:
    if not await user.fetchval("select current_setting('transaction_timeout', true)"):
        pytest.skip("this version of PostgreSQL has no transaction_timeout")
    await limit(database, {"transaction_timeout": "300ms"})
    async with running_engine(database):
        status, _, output = await run(user, "select pg_sleep(20)")
        assert status == "failed"
        assert "transaction timeout" in output
        status, _, _ = await run(user, "select 1")
    assert status == "completed"
