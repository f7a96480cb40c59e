"""Whose rights a run has, and who sees, wakes and ends it."""

from __future__ import annotations

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conformance.conftest import Stage
from tests.conformance.stage import finish, play, start
from tests.df.conftest import OTHER, USER

REFUSED = asyncpg.PostgresError


async def test_statements_run_as_the_submitting_role(
    actor: Connection, stranger: Connection
) -> None:
    text = "'select current_user::text as u, session_user::text as s'"
    for conn, role in ((actor, USER), (stranger, OTHER)):
        assert (await play(conn, text)).rows == [{"u": role, "s": role}]


async def test_a_run_can_read_what_its_role_can(actor: Connection, stranger: Connection) -> None:
    await actor.execute("drop table if exists corpus.mine; create table corpus.mine (n integer)")
    assert (await play(actor, "'select count(*) from corpus.mine'")).cell == 0
    assert "permission denied" in (await play(stranger, "'select count(*) from corpus.mine'")).error


@pytest.mark.parametrize(
    "text",
    [
        "reset role",
        "reset session authorization",
        "set role none",
        "do $d$ begin execute 'reset role'; end $d$",
        "select set_config('role', 'none', false)",
    ],
)
async def test_a_run_cannot_become_somebody_else(actor: Connection, text: str) -> None:
    flow = f"df.seq($q${text}$q$, 'select current_user::text as u')"
    assert (await play(actor, flow)).cell == USER


async def test_what_a_statement_sets_does_not_reach_the_next(actor: Connection) -> None:
    flow = """df.seq('set search_path = corpus',
      df.seq('select set_config(''app.x'', ''1'', false)',
      'select current_setting(''search_path'') p, current_setting(''app.x'', true) x'))"""
    [row] = (await play(actor, flow)).rows
    assert row["p"] == await actor.fetchval("show search_path")
    assert row["x"] in (None, "")


async def test_others_see_nothing_of_an_instance(actor: Connection, stranger: Connection) -> None:
    played = await play(actor, "'select 1'", "private")
    assert await stranger.fetchval("select df.status($1)", played.id) is None
    assert await stranger.fetchval("select df.result($1)", played.id) is None
    for reader in ("instance_info", "instance_nodes", "instance_executions"):
        assert await stranger.fetch(f"select * from df.{reader}($1)", played.id) == []  # noqa: S608
    listed = await stranger.fetch("select * from df.list_instances(null, 1000)")
    assert played.id not in {r["instance_id"] for r in listed}
    for table, column in (("instances", "id"), ("nodes", "instance_id")):
        count = f"select count(*) from df.{table} where {column} = $1"  # noqa: S608
        assert await stranger.fetchval(count, played.id) == 0
        assert await actor.fetchval(count, played.id) == 1


@pytest.mark.parametrize(
    "call", ["df.cancel($1)", "df.signal($1, 'go')", "df.await_instance($1, 5)"]
)
async def test_others_may_not_touch_an_instance(
    actor: Connection, stranger: Connection, call: str
) -> None:
    instance = await start(actor, "df.wait_for_signal('go')")
    with pytest.raises(REFUSED, match=r"not found or access denied|Failed to query status"):
        await stranger.fetchval(f"select {call}", instance)
    await actor.fetchval("select df.cancel($1, 'mine')", instance)
    assert (await finish(actor, instance)).output == "canceled: mine"


async def test_who_may_do_all_sees_and_ends_all(actor: Connection, stage_admin: Connection) -> None:
    label = await actor.fetchval("select gen_random_uuid()::text")
    instance = await start(actor, "df.wait_for_signal('go')", label)
    listed = await stage_admin.fetch("select * from df.list_instances(null, 10, $1)", label)
    assert instance in {r["instance_id"] for r in listed}
    await stage_admin.fetchval("select df.cancel($1, 'maintenance')", instance)
    assert (await finish(actor, instance)).output == "canceled: maintenance"


async def test_variables_are_each_roles_own(actor: Connection, stranger: Connection) -> None:
    await actor.fetchval("select df.setvar('v', 'mine')")
    await stranger.fetchval("select df.setvar('v', 'theirs')")
    text = "$q$select '{v}' as v$q$"
    assert (await play(actor, text)).cell == "mine"
    assert (await play(stranger, text)).cell == "theirs"
    assert await actor.fetchval("select count(*) from df.vars") == 1
    for conn in (actor, stranger):
        await conn.fetchval("select df.clearvars()")


async def test_http_and_metrics_need_their_own_grant(stranger: Connection) -> None:
    for call in (
        "df.http('http://h')",
        "df.metrics()",
        "df.grant_usage('public')",
        "df.revoke_usage('public')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.fetch(f"select {call}")


async def test_grants_are_added_and_taken(stage: Stage, stage_admin: Connection) -> None:
    admin = await asyncpg.connect(stage.database.admin_dsn)
    role = f"granted_{stage.database.name}"
    await admin.execute(f"drop role if exists {role}")
    await admin.execute(f"create role {role} login")
    conn = await asyncpg.connect(stage.database.as_role(role))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await start(conn, "'select 1'")
        await stage_admin.execute("select df.grant_usage($1)", role)
        assert (await play(conn, "'select 1 as n'")).cell == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetchval("select df.http('http://h')")
        await stage_admin.execute("select df.grant_usage($1, include_http => true)", role)
        assert await conn.fetchval("select df.http('http://h')")
        await stage_admin.execute("select df.grant_usage($1, with_grant => true)", role)
        assert await conn.fetchrow("select * from df.metrics()")
        await stage_admin.execute("select df.revoke_usage($1)", role)
        for call in ("df.start('select 1')", "df.http('http://h')", "df.metrics()", "df.version()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch(f"select {call}")
    finally:
        await conn.close()
        await admin.execute(f"drop owned by {role}")
        rows = f"where submitted_by = '{role}'::regrole"
        await admin.execute(f"delete from df.nodes {rows}; delete from df.instances {rows}")  # noqa: S608
        await admin.execute(f"drop role {role}")
        await admin.close()


@pytest.mark.ours("a setting of the extension's server, which is read when that starts")
async def test_a_superuser_may_start_if_a_setting_says_so(stage: Stage) -> None:
    admin = await asyncpg.connect(stage.database.admin_dsn)
    try:
        await admin.execute("set pg_durable.enable_superuser_instances = on")
        text = "'select current_setting(''is_superuser'') as s'"
        assert (await play(admin, text)).cell == "on"
    finally:
        await admin.close()


async def test_a_superuser_is_refused_and_so_is_a_role_without_login(stage: Stage) -> None:
    admin = await asyncpg.connect(stage.database.admin_dsn)
    try:
        with pytest.raises(REFUSED):
            await admin.fetchval("select df.start('select 1')")
        group = f"group_{stage.database.name}"
        await admin.execute(f"drop role if exists {group}")
        await admin.execute(f"create role {group} nologin")
        await admin.execute("select df.grant_usage($1)", group)
        await admin.execute(f"set role {group}")
        with pytest.raises(REFUSED):
            await admin.fetchval("select df.start('select 1')")
        await admin.execute("reset role")
        await admin.execute(f"drop owned by {group}")
        await admin.execute(f"drop role {group}")
    finally:
        await admin.close()
