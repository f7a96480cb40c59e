"""Passing rights on, roles with odd names, and what row-level security keeps apart."""

from __future__ import annotations

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import Database
from tests.df.conftest import OTHER, USER, running_engine

DENIED = asyncpg.InsufficientPrivilegeError
ODD = ("Odd Name", "with \"quotes\" and 'more'", "UPPER", "ünïcödé$1; drop", "select")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", ODD)
async def test_a_role_with_an_odd_name_runs_its_own_and_sees_nobody_elses(
    database: Database, admin: Connection, user: Connection, name: str
) -> None:
    name = f"{name} {database.name}"
    await user.execute("select df.setvar('v', 'theirs')")
    theirs = await user.fetchval("select df.start('select 1')")
    await admin.execute(f"create role {quoted(name)} login")
    await admin.execute("select df.grant_usage($1)", name)
    odd = await asyncpg.connect(database.admin_dsn, user=name)
    try:
        await odd.execute("select df.setvar('v', 'mine')")
        async with running_engine(database):
            graph = "select '{v}' as v, current_user::text as me, session_user::text as came"
            instance = await odd.fetchval("select df.start($1, 'odd')", graph)
            assert await odd.fetchval("select df.await_instance($1)", instance) == "completed"
        result = await odd.fetchval("select df.result($1)::json #>> '{rows,0}'", instance)
        assert await odd.fetchval("select $1::json ->> 'v'", result) == "mine"
        assert await odd.fetchval("select $1::json ->> 'me'", result) == name
        assert await odd.fetchval("select $1::json ->> 'came'", result) == name
        for seen, column, table in (
            (instance, "id", "df.instances"),
            (instance, "instance_id", "df.nodes"),
            ("mine", "value", "df.vars"),
        ):
            rows = await odd.fetch(f"select {column} from {table}")  # noqa: S608
            assert {str(row[0]) for row in rows} == {seen}
        assert await odd.fetchval("select df.status($1)", theirs) is None
        assert await user.fetchval("select df.status($1)", instance) is None
    finally:
        await odd.close()
        await admin.execute("select df.revoke_usage($1)", name)
        await admin.execute(f"drop owned by {quoted(name)}")
        await admin.execute(f"drop role {quoted(name)}")


async def test_a_function_in_a_condition_sees_no_row_of_others(
    user: Connection, other: Connection, admin: Connection
) -> None:
    """Policies come before conditions, however cheap these claim to be."""
    await user.fetchval("select df.setvar('secret', 'one')")
    await user.fetchval("select df.start('select ''secret''')")
    await admin.execute(f"create schema leaky authorization {OTHER}")
    await other.execute(
        "create table leaky.seen (what text); create function leaky.look(text) returns boolean "
        "language plpgsql cost 0.0001 as "
        "$$ begin insert into leaky.seen values ($1); return true; end $$"
    )
    for table in ("df.vars", "df.instances", "df.nodes", "df._results"):
        await other.fetch(f"select * from {table} t where leaky.look(t::text)")  # noqa: S608
    assert await other.fetch("select * from leaky.seen") == []


async def test_usage_without_grant_option_cannot_be_passed_on(
    user: Connection, other: Connection, owner: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", OTHER)
    for attempt in (
        f"select df.grant_usage('{OTHER}')",
        f"select df.revoke_usage('{OTHER}')",
        "select df._close()",
    ):
        with pytest.raises(DENIED):
            await user.execute(attempt)
    await user.execute(f"grant execute on function df.start(text, text, text, text) to {OTHER}")
    with pytest.raises(DENIED):
        await other.fetchval("select df.start('select 1')")


async def test_what_is_held_without_grant_option_is_not_handed_on_silently(
    user: Connection, other: Connection, owner: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", USER)
    await owner.execute("select df.grant_usage($1, include_http => true)", USER)
    await owner.execute("select df.grant_usage($1, with_grant => true)", USER)
    with pytest.raises(DENIED, match="may not pass on"):
        await user.execute("select df.grant_usage($1, include_http => true)", OTHER)
    await user.execute("select df.grant_usage($1)", OTHER)
    with pytest.raises(DENIED):
        await other.fetchval("select df.http('http://peer/')")
    await owner.execute("select df._close()")
    with pytest.raises(DENIED, match="may not pass on"):
        await user.execute("select df.grant_usage($1, include_http => true)", OTHER)


async def test_who_passes_on_without_http_takes_back_without_http(
    user: Connection, other: Connection, owner: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", OTHER)
    await owner.execute("select df.revoke_usage($1)", USER)
    await owner.execute("select df.grant_usage($1, with_grant => true)", USER)
    await user.execute("select df.grant_usage($1)", OTHER)
    assert await other.fetchval("select df.start('select 1')")
    await user.execute("select df.revoke_usage($1)", OTHER)
    with pytest.raises(DENIED):
        await other.fetchval("select df.start('select 1')")


async def test_delegated_rights_go_on_and_go_with_their_giver(
    user: Connection, other: Connection, owner: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", OTHER)
    await owner.execute("select df.grant_usage($1, include_http => true, with_grant => true)", USER)
    await user.execute("select df.grant_usage($1, include_http => true, with_grant => true)", OTHER)
    assert await other.fetchval("select df.start(df.http('http://peer/'))")
    await owner.execute("select df.revoke_usage($1)", USER)
    for role in (user, other):
        with pytest.raises(DENIED):
            await role.fetchval("select df.start('select 1')")


async def test_a_revocation_says_whose_grant_is_left(
    user: Connection, other: Connection, owner: Connection
) -> None:
    await owner.execute("select df.revoke_usage($1)", OTHER)
    await owner.execute("select df.grant_usage($1, with_grant => true)", USER)
    await user.execute("select df.grant_usage($1)", OTHER)
    said: list[str] = []
    owner.add_log_listener(lambda _, message: said.append(message.message))
    await owner.execute("select df.revoke_usage($1)", OTHER)
    assert said == [f"role {OTHER} still may use df: it was let in by {USER}"]
    assert await other.fetchval("select df.start('select 1')")


@pytest.mark.parametrize("said", ["on", "true", "'1'"])
async def test_superusers_are_let_in_by_the_extensions_setting(
    database: Database, admin: Connection, said: str
) -> None:
    for before in ("off", "''", said):
        with pytest.raises(DENIED, match="superuser"):
            await admin.fetchval("select df.start('select 1')")
        await admin.execute(f"set pg_durable.enable_superuser_instances = {before}")
    async with running_engine(database):
        instance = await admin.fetchval("select df.start('select current_user::text as me')")
        assert await admin.fetchval("select df.await_instance($1)", instance) == "completed"
    assert '"postgres"' in await admin.fetchval("select df.result($1)", instance)
