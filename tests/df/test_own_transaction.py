"""df.start(…, transaction_mode => 'new'): committed whatever becomes of the caller."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import OWNER, RUN_PASSWORD, Database, until
from tests.df.conftest import USER, running_engine

START = "select df.start($1, 'alone', transaction_mode => 'new')"


@pytest.fixture
async def alone(database: Database, user: Connection) -> Connection:
    """The user, in a database with dblink, where the owner may log in as the server trusts."""
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute("create schema links; create extension dblink schema links")
    await admin.execute(f"grant usage on schema links to {OWNER}")
    await admin.execute(f"grant execute on function links.dblink_connect_u(text, text) to {OWNER}")
    await admin.execute("insert into pgflows.run_login (password) values ($1)", RUN_PASSWORD)
    await admin.close()
    return user


async def test_it_outlives_a_rollback(alone: Connection, database: Database) -> None:
    await alone.execute("create table corpus.made (n integer)")
    await alone.execute("select df.setvar('kept', '4')")
    transaction = alone.transaction()
    await transaction.start()
    await alone.execute("select df.setvar('lost', '1')")
    instance = await alone.fetchval(START, "insert into corpus.made values ({kept}) returning n")
    lost = await alone.fetchval("select df.start('select 1')")
    await transaction.rollback()
    async with running_engine(database):
        assert await alone.fetchval("select df.await_instance($1, 20)", instance) == "completed"
    assert await alone.fetchval("select array_agg(n) from corpus.made") == [4]
    row = await alone.fetchrow("select label, submitted_by::text from df.instances")
    assert tuple(row or ()) == ("alone", USER)
    assert await alone.fetchval("select df.status($1)", lost) is None


async def test_refusals_are_those_of_any_start_and_leave_no_session(
    alone: Connection, owner: Connection
) -> None:
    with pytest.raises(asyncpg.PostgresError, match="function graph: root: THEN needs two"):
        await alone.fetchval(START, '{"node_type":"THEN"}')
    with pytest.raises(asyncpg.PostgresError, match="Unknown node_type 'NOPE'"):
        await alone.fetchval(START, '{"node_type":"NOPE"}')
    none_left = (
        "select count(*) = 0 from pg_stat_activity "
        "where application_name = 'df_start' and datname = current_database()"
    )
    await until(lambda: owner.fetchval(none_left), what="the end of the sessions")
    assert await alone.fetchval(START, "select 1") is not None


async def test_a_start_that_is_cut_off_leaves_no_session_of_pgflows_run(
    alone: Connection, other: Connection, owner: Connection, admin: Connection
) -> None:
    sessions = (
        "select wait_event_type from pg_stat_activity "
        "where application_name = 'df_start' and datname = current_database()"
    )

    async def waits() -> bool:
        return bool(await owner.fetchval(sessions) == "Lock")

    async def none_left() -> bool:
        return await owner.fetch(sessions) == []

    async with other.transaction():
        await other.execute("lock table df.vars in access exclusive mode")
        start = asyncio.create_task(alone.fetchval(START, "select 1"))
        await until(waits)
        pid = alone.get_server_pid()
        assert await admin.fetchval("select pg_cancel_backend($1)", pid)
    with pytest.raises(asyncpg.QueryCanceledError):
        await start
    await until(none_left)


async def test_who_could_use_the_session_may_not_have_one_opened(
    alone: Connection, database: Database
) -> None:
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"grant usage on schema links to {USER}")
    await admin.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="can use dblink"):
        await alone.fetchval(START, "select 1")


async def test_nobody_but_the_server_can_seal_a_request(
    alone: Connection, database: Database
) -> None:
    ours = await asyncpg.connect(database.run_dsn)
    forged = (
        "select df._begin_sealed('0badf00d', 'select 1', null, null, $1::regrole, "
        "extract(epoch from now())::bigint + 60, $2)"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="seal"):
        await ours.fetchval(forged, OWNER, "0" * 64)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="seal"):
        await ours.fetchval(forged, OWNER, None)
    for attempt in (
        "select * from df._seal_key",
        "select df._seal('0badf00d', 'select 1', null, null, 10, 0)",
        "select df._start_own_transaction('select 1', null, null, 10)",
        "select df._begin('0badf00d', 'select 1', null, null, 10)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await ours.execute(attempt)
    await ours.close()


async def test_a_seal_is_good_once_and_for_a_minute(
    alone: Connection, owner: Connection, database: Database
) -> None:
    sealed = "select df._begin_sealed($1, 'select 1', null, null, $2::oid, $3, $4)"
    seal = "select df._seal($1, 'select 1', null, null, $2::oid, $3)"
    role = await owner.fetchval("select oid from pg_roles where rolname = $1", USER)
    now = await owner.fetchval("select extract(epoch from now())::bigint")
    ours = await asyncpg.connect(database.run_dsn)
    given = ("0badf00d", role, now + 60)
    assert await ours.fetchval(sealed, *given, await owner.fetchval(seal, *given)) == "0badf00d"
    with pytest.raises(asyncpg.UniqueViolationError):
        await ours.fetchval(sealed, *given, await owner.fetchval(seal, *given))
    late = ("0badf11d", role, now - 1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="seal"):
        await ours.fetchval(sealed, *late, await owner.fetchval(seal, *late))
    await ours.close()


async def test_not_inside_a_workflow(alone: Connection, database: Database) -> None:
    text = "select df.start('select 1', transaction_mode => 'new')"
    async with running_engine(database):
        instance = await alone.fetchval("select df.start($1)", text)
        assert await alone.fetchval("select df.await_instance($1, 20)", instance) == "failed"
    shown = await alone.fetchval("select result from df.nodes where instance_id = $1", instance)
    assert "inside a workflow" in shown


async def test_without_dblink_it_says_what_is_missing(user: Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match="needs the extension dblink") as refused:
        await user.fetchval(START, "select 1")
    assert refused.value.sqlstate == "PF102"


async def test_an_unknown_mode_is_refused(user: Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match='invalid transaction_mode "later"'):
        await user.fetchval("select df.start('select 1', transaction_mode => 'later')")
