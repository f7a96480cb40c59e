"""df.start(…, database => …): statements run there, everything else here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import Database
from tests.df.conftest import USER, running_engine

START = "select df.start($1, database => $2)"


@pytest.fixture
async def elsewhere(database: Database, user: Connection) -> AsyncIterator[Connection]:
    """A connection as the user to a second database, which knows nothing of df."""
    name = f"{database.name}_else"
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"create database {name} owner {USER}")
    conn = await asyncpg.connect(database.as_role(USER), database=name)
    await conn.execute("create table made (n integer)")
    yield conn
    await conn.close()
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def name_of(conn: Connection) -> str:
    return str(await conn.fetchval("select current_database()"))


async def outcome(user: Connection, instance: str) -> tuple[str, str]:
    status = await user.fetchval("select df.await_instance($1, 20)", instance)
    root = (
        "select n.result #>> '{}' from df.nodes n "
        "join df.instances i on i.root_node = n.id where i.id = $1"
    )
    return status, await user.fetchval(root, instance)


async def test_statements_run_there_as_the_submitter(
    user: Connection, elsewhere: Connection, database: Database
) -> None:
    graph = await user.fetchval(
        """select df.seq(df.as('insert into made values (7) returning n', 'm'), df.join(
             'select $m + 1 as n, current_user::text as who', 'select current_database()'))"""
    )
    async with running_engine(database):
        instance = await user.fetchval(START, graph, await name_of(elsewhere))
        status, result = await outcome(user, instance)
    assert status == "completed", result
    first, second = json.loads(result)
    assert first["rows"] == [{"n": 8, "who": USER}]
    assert second["rows"] == [{"current_database": await name_of(elsewhere)}]
    assert await elsewhere.fetchval("select array_agg(n) from made") == [7]
    shown = await user.fetchval(
        "select array_agg(distinct database) from df.nodes where instance_id = $1", instance
    )
    assert shown == [await name_of(elsewhere)]


async def test_a_statement_that_fails_there_fails_its_node(
    user: Connection, elsewhere: Connection, database: Database
) -> None:
    async with running_engine(database):
        instance = await user.fetchval(START, "select 1/0", await name_of(elsewhere))
        status, result = await outcome(user, instance)
    assert status == "failed"
    assert "division by zero" in result


async def test_what_needs_a_transaction_of_its_own_runs_there_too(
    user: Connection, elsewhere: Connection, database: Database
) -> None:
    async with running_engine(database):
        instance = await user.fetchval(START, "vacuum made", await name_of(elsewhere))
        assert (await outcome(user, instance))[0] == "completed"


async def test_a_database_that_is_gone_by_then_fails_the_node(
    user: Connection, elsewhere: Connection, database: Database
) -> None:
    name = await name_of(elsewhere)
    instance = await user.fetchval(START, "select 1", name)
    await elsewhere.close()
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"alter database {name} rename to {database.name}_x")
    try:
        async with running_engine(database):
            status, result = await outcome(user, instance)
    finally:
        await admin.execute(f"alter database {database.name}_x rename to {name}")
        await admin.close()
    assert status == "failed"
    assert "the database of this instance is gone" in result


async def test_the_own_database_by_name_is_as_none(user: Connection, database: Database) -> None:
    async with running_engine(database):
        instance = await user.fetchval(START, "vacuum", database.name)
        assert (await outcome(user, instance))[0] == "completed"


async def test_an_unknown_or_closed_database_is_refused_at_the_start(
    user: Connection, elsewhere: Connection, database: Database
) -> None:
    with pytest.raises(asyncpg.PostgresError, match='database "nowhere" does not exist'):
        await user.fetchval(START, "select 1", "nowhere")
    name = await name_of(elsewhere)
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"alter database {name} owner to postgres")
    await admin.execute(f"revoke connect on database {name} from public")
    await admin.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="may not connect"):
        await user.fetchval(START, "select 1", name)
