"""Who may do what with `df`: roles see and touch what is theirs, and nobody writes the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import Database
from tests.df.conftest import OTHER, USER, running_engine

DENIED = asyncpg.InsufficientPrivilegeError


async def test_a_role_sees_its_own_instances_only(user: Connection, other: Connection) -> None:
    mine = await user.fetchval("select df.start('select 1', 'mine')")
    theirs = await other.fetchval("select df.start('select 2', 'theirs')")
    assert [r["instance_id"] for r in await user.fetch("select * from df.list_instances()")] == [
        mine
    ]
    assert await other.fetchval("select df.status($1)", mine) is None
    assert await other.fetchval("select df.status($1)", theirs) == "pending"
    assert await other.fetch("select * from df.instance_nodes($1)", mine) == []
    assert await other.fetch("select * from df.instance_info($1)", mine) == []
    assert await other.fetch("select * from df.instance_executions($1)", mine) == []
    assert await other.fetchval("select df.explain($1)", mine) == f"Instance '{mine}' not found"
    assert {r["id"] for r in await other.fetch("select id from df.instances")} == {theirs}
    assert {r["instance_id"] for r in await other.fetch("select * from df.nodes")} == {theirs}


async def test_a_role_may_not_end_wake_or_await_anothers_instance(
    user: Connection, other: Connection
) -> None:
    mine = await user.fetchval("select df.start('select 1')")
    for call in ("df.cancel($1)", "df.signal($1, 'go')", "df.await_instance($1)"):
        with pytest.raises(asyncpg.PostgresError, match="not found or access denied") as refused:
            await other.fetchval(f"select {call}", mine)
        assert refused.value.sqlstate == "PF014"
    assert await user.fetchval("select df.status($1)", mine) == "pending"


async def test_the_owner_sees_and_cancels_all(owner: Connection, user: Connection) -> None:
    instance = await user.fetchval("select df.start('select 1')")
    assert await owner.fetchval("select df.status($1)", instance) == "pending"
    await owner.fetchval("select df.cancel($1, 'maintenance')", instance)
    info = await user.fetchrow("select * from df.instance_info($1)", instance)
    assert info is not None
    assert (info["status"], info["output"]) == ("cancelled", "canceled: maintenance")


async def test_the_submitter_is_the_current_role_and_cannot_be_given(
    database: Database, user: Connection, other: Connection
) -> None:
    forged = "insert into df._submissions (envelope, submitted_by) values ('select 1', $1::regrole)"
    with pytest.raises(DENIED):
        await user.execute(forged, OTHER)
    forged = (
        "insert into df._requests (instance_id, verb, requested_by) "
        "values ('00000000', 'cancel', $1::regrole)"
    )
    with pytest.raises(DENIED):
        await user.execute(forged, OTHER)
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"set role {USER}")
    instance = await admin.fetchval("select df.start('select 1')")
    await admin.execute("reset role")
    submitter = "select submitted_by::text from df.instances where id = $1"
    assert await admin.fetchval(submitter, instance) == USER
    await admin.close()


@pytest.mark.parametrize(
    "statement",
    [
        "insert into df.instances (id, root_node, submitted_by) values ('0', '1', '{user}')",
        "update df.instances set status = 'completed'",
        "delete from df.instances",
        "insert into df.nodes (id, instance_id, node_type, submitted_by) select '0', '0', 'SQL', 1",
        "update df.nodes set query = 'select 2'",
        "delete from df.nodes",
        "select * from df._work",
        "update df._work set owner = null",
        "insert into df._work (instance_id) values ('00000000')",
        "select * from df._submissions",
        "select * from df._requests",
        "insert into df._results values ('00000000', '00000000', '1')",
        "select * from df._signals",
        "select * from df._prepared_graphs",
        "select * from df._prepared_nodes",
        "select * from df._worker_epoch",
        "create table df.mine (i integer)",
        "create trigger mine before insert on df.vars for each row execute function df._submit()",
    ],
)
async def test_tables_cannot_be_written_nor_the_engines_read(
    user: Connection, statement: str
) -> None:
    await user.fetchval("select df.start('select 1')")
    with pytest.raises(DENIED):
        await user.execute(statement.format(user=USER))


@pytest.mark.parametrize(
    "call",
    [
        "df._claim(gen_random_uuid(), 10)",
        "df._open_engine(gen_random_uuid())",
        "df._load('{}')",
        "df._mail('{}')",
        "df._release('00000000', gen_random_uuid())",
        "df._free('{}')",
        "df._prepare('select 1')",
        "df._cancel('00000000', 'x')",
        "df._deliver('00000000', 'go', '{}')",
        "df._close()",
        "df.metrics()",
        "df.grant_usage('public')",
        "df.revoke_usage('public')",
    ],
)
async def test_what_engines_and_admins_call_is_closed(user: Connection, call: str) -> None:
    with pytest.raises(DENIED):
        await user.fetch(f"select {call}")


async def test_a_checkpoint_without_the_token_of_a_claim_writes_nothing(
    user: Connection, owner: Connection
) -> None:
    instance = await user.fetchval("select df.start('select 1')")
    held = await user.fetchval(
        "select df._checkpoint(array[$1], array[gen_random_uuid()], e_instance => array[$1], "
        "e_status => array['completed'], e_output => array['1'])",
        instance,
    )
    assert held == []
    assert await owner.fetchval("select df.status($1)", instance) == "pending"


@pytest.fixture
async def nobody(database: Database, owner: Connection) -> AsyncIterator[Connection]:
    """A session of a role that may log in and no more."""
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute("drop role if exists pgflows_test_nobody")
    await admin.execute("create role pgflows_test_nobody login")
    session = await asyncpg.connect(database.as_role("pgflows_test_nobody"))
    yield session
    await session.close()
    await admin.execute("drop owned by pgflows_test_nobody")
    await admin.execute("drop role pgflows_test_nobody")
    await admin.close()


async def test_a_role_without_usage_may_do_nothing(nobody: Connection, owner: Connection) -> None:
    with pytest.raises(DENIED):
        await nobody.fetchval("select df.version()")
    await owner.execute("grant usage on schema df to pgflows_test_nobody")
    assert await nobody.fetchval("select df.sql('select 1')")
    with pytest.raises(DENIED, match="may not start instances"):
        await nobody.fetchval("select df.start('select 1')")
    for attempt in (
        "df.list_instances()",
        "df.setvar('a', 'b')",
        "df.http('http://peer/')",
        "df.http_multipart('http://peer/')",
        "df.metrics()",
        "df.grant_usage('pgflows_test_nobody')",
    ):
        with pytest.raises(DENIED):
            await nobody.fetch(f"select * from {attempt}")  # noqa: S608


GRANTS = """
    grant usage on schema df to {0};
    grant select on df.instances to {0};
    grant update (status, updated_at) on df.instances to {0};
    grant select on df.nodes to {0};
    grant insert (id, label, root_node, submitted_by, database) on df.instances to {0};
    grant insert (id, instance_id, node_type, query, result_name, left_node, right_node,
        submitted_by, database) on df.nodes to {0};
    grant select, insert, update, delete on df.vars to {0};
"""


@pytest.mark.parametrize("through", ["the role", "a group"])
async def test_grants_written_by_hand_let_a_role_in(
    database: Database, nobody: Connection, owner: Connection, through: str
) -> None:
    """The list is that of the extension's guide."""
    role = "pgflows_test_nobody"
    if through == "a group":
        await owner.execute("create role pgflows_test_group nologin")
        await owner.execute("grant pgflows_test_group to pgflows_test_nobody")
        role = "pgflows_test_group"
    await owner.execute(GRANTS.format(role))
    await nobody.execute("select df.setvar('n', '7')")
    async with running_engine(database):
        done = await nobody.fetchval("select df.start('select {n} as n')")
        assert await nobody.fetchval("select df.await_instance($1)", done) == "completed"
        assert '"n": 7' in await nobody.fetchval("select df.result($1)", done)
        waits = await nobody.fetchval("select df.start(df.wait_for_signal('go'))")
        await nobody.fetchval("select df.signal($1, 'go')", waits)
        assert await nobody.fetchval("select df.await_instance($1)", waits) == "completed"
        gone = await nobody.fetchval("select df.start(df.sleep(60))")
        await nobody.fetchval("select df.cancel($1)", gone)
        assert await nobody.fetchval("select df.status($1)", gone) == "cancelled"
    assert len(await nobody.fetch("select * from df.list_instances()")) == 3
    with pytest.raises(DENIED):
        await nobody.fetchval("select df.http('http://peer/')")
    call = "df.http(text, text, text, jsonb, integer)"
    await owner.execute(f"grant execute on function {call} to {role}")
    assert await nobody.fetchval("select df.start(df.http('http://peer/'))")
    await owner.execute("select df.revoke_usage($1)", role)
    with pytest.raises(DENIED):
        await nobody.fetchval("select df.start('select 1')")
    if through == "a group":
        await owner.execute("drop role pgflows_test_group")


async def test_http_needs_its_own_grant(owner: Connection, other: Connection) -> None:
    with pytest.raises(DENIED):
        await other.fetchval("select df.http('http://peer/')")
    await owner.execute("select df.grant_usage($1, include_http => true)", OTHER)
    assert await other.fetchval("select df.start(df.http('http://peer/'))")


async def test_usage_can_be_revoked_and_passed_on(
    database: Database, owner: Connection, user: Connection, other: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", OTHER)
    with pytest.raises(DENIED):
        await other.fetchval("select df.start('select 1')")
    await owner.execute("select df.grant_usage($1, include_http => true, with_grant => true)", USER)
    assert await user.fetchrow("select * from df.metrics()") is not None
    await user.execute("select df.grant_usage($1)", OTHER)
    assert await other.fetchval("select df.start('select 1')")


async def test_new_functions_are_open_to_who_uses_df_and_internal_ones_are_not(
    owner: Connection, other: Connection
) -> None:
    await owner.execute("create function df.later() returns integer language sql as 'select 7'")
    await owner.execute("create function df._inner() returns integer language sql as 'select 8'")
    await owner.execute("select df._close()")
    assert await other.fetchval("select df.later()") == 7
    with pytest.raises(DENIED):
        await other.fetchval("select df._inner()")


async def test_superusers_and_roles_without_login_do_not_start(
    database: Database, user: Connection
) -> None:
    admin = await asyncpg.connect(database.admin_dsn)
    with pytest.raises(DENIED, match="superuser"):
        await admin.fetchval("select df.start('select 1')")
    await admin.execute("set pgflows.allow_superuser = on")
    assert await admin.fetchval("select df.start('select 1')")
    await admin.execute("drop role if exists pgflows_test_group")
    await admin.execute("create role pgflows_test_group nologin")
    await admin.execute("select df.grant_usage('pgflows_test_group')")
    await admin.execute("set role pgflows_test_group")
    with pytest.raises(DENIED, match="does not have LOGIN privilege"):
        await admin.fetchval("select df.start('select 1')")
    await admin.execute("reset role")
    await admin.execute("drop owned by pgflows_test_group")
    await admin.execute("drop role pgflows_test_group")
    await admin.close()


async def test_variables_belong_to_a_role_and_go_into_its_starts(
    owner: Connection, user: Connection, other: Connection
) -> None:
    await user.fetchval("select df.setvar('v', 'mine')")
    await other.fetchval("select df.setvar('v', 'theirs')")
    assert await user.fetchval("select df.getvar('v')") == "mine"
    owners = await user.fetch("select owner::text from df.vars")
    assert [row["owner"] for row in owners] == [USER]
    with pytest.raises(DENIED):
        await user.execute("insert into df.vars values ('w', 'x', $1::regrole)", OTHER)
    instance = await user.fetchval("select df.start('select 1')")
    kept = "select vars from df._work where instance_id = $1"
    assert await owner.fetchval(kept, instance) == '{"v": "mine"}'
    await user.fetchval("select df.clearvars()")
    assert await user.fetchval("select df.getvar('v')") is None
    assert await other.fetchval("select df.getvar('v')") == "theirs"
