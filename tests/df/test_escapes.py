"""A node that tries to be more than the role that submitted it: nothing works, and it is noted."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import OWNER, RUN, Database, until
from tests.df.conftest import OTHER, USER, running_engine

NO_RIGHT = [
    f"set role {OWNER}",
    f"set session authorization {OWNER}",
    "set session authorization postgres",
    f"select set_config('role', '{OWNER}', false)",
    f"select set_config('session_authorization', '{RUN}', false)",
    f"do $$ begin execute 'set role {RUN}'; end $$",
    f"do $$ begin perform set_config('role', '{OTHER}', true); end $$",
    f"create function corpus.up() returns text language sql set role = {OWNER} as 'select 1'",
    f"alter role {USER} superuser",
    f"grant {OWNER} to {USER}",
    f"grant {RUN} to {USER}",
    f"alter function corpus.who() owner to {OWNER}",
    "update df.nodes set status = 'completed', result = '1'",
    "insert into df.nodes (id, instance_id, node_type, submitted_by) values ('0', '0', 'HTTP', 10)",
    "update df.instances set submitted_by = 10",
    "update df._work set owner = null, token = null",
    "select token from df._work",
    "delete from df._results",
    "select * from df._signals",
    "select * from df._seal_key",
    "insert into df._submissions (envelope, submitted_by) values ('select 1', 10)",
    "insert into df._requests (instance_id, verb, requested_by) values ('0', 'cancel', 10)",
    f"insert into df.vars values ('x', 'y', '{OTHER}')",  # noqa: S608
    "select * from df._claim(gen_random_uuid(), 10)",
    "select df._open_engine(gen_random_uuid())",
    "select df._release('00000000', gen_random_uuid())",
    "select df._free('{}')",
    "select df._prepare('select 1')",
    "select df._enter(null, null, null, null, null, 10)",
    "select df.metrics()",
    f"select df.grant_usage('{USER}', true, true)",
    "select * from pgflows.frames",
    "select * from pgflows.signing_keys",
    "select password from pgflows.run_login",
    "select pgflows.take('00000000', 'main', 1)",
    "select pgflows.live_keys()",
    "select pgflows.start('any', '{}')",
    "create table df.mine (n integer)",
    "create function pgflows.mine() returns integer language sql as 'select 1'",
    "create trigger mine before insert on df.vars for each row execute function df._submit()",
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pgflows_tests'",
    "select pg_read_file('PG_VERSION')",
    "copy (select 1) to program 'true'",
]
IN_VAIN = [
    "do $$ begin reset role; insert into corpus.seen select * from corpus.who(); end $$",
    "do $$ begin set session authorization default; "
    "insert into corpus.seen select * from corpus.who(); end $$",
    "do $$ begin perform set_config('role', 'none', false); "
    "insert into corpus.seen select * from corpus.who(); end $$",
    f"do $$ begin begin set role {OWNER}; exception when others then null; end; "  # noqa: S608
    "insert into corpus.seen select * from corpus.who(); end $$",
    "/*pgflows*/ insert into corpus.seen select * from corpus.who() returning 1",
    "/*pgflows*/select 1 from corpus.note()",
]


async def run_all(
    database: Database, user: Connection, texts: Sequence[str]
) -> dict[str, tuple[str, str, str]]:
    """Instance, status and output of each text, run as one node."""
    async with running_engine(database):
        started = [(t, await user.fetchval("select df.start(df.sql($1))", t)) for t in texts]
        found = {}
        for text, instance in started:
            status = await user.fetchval("select df.await_instance($1)", instance)
            info = await user.fetchrow("select output from df.instance_info($1)", instance)
            found[text] = (instance, status, str(info and info["output"]))
    return found


@pytest.fixture
async def seen(user: Connection) -> Connection:
    """The user, who has a table for what its nodes see themselves as."""
    await user.execute(
        "create table corpus.seen (who text, logged_in text, application text); "
        "create function corpus.who() returns setof corpus.seen language sql as "
        "$$ select current_user, session_user, current_setting('application_name') $$; "
        "create function corpus.note() returns setof corpus.seen language sql as "
        "$$ insert into corpus.seen select * from corpus.who() returning * $$"
    )
    return user


async def test_what_a_role_may_not_do_fails_its_node_and_leaves_a_line(
    database: Database, seen: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pgflows.audit")
    found = await run_all(database, seen, NO_RIGHT)
    assert {t: o for t, (_, status, o) in found.items() if status != "failed"} == {}
    lines = [r.getMessage() for r in caplog.records if r.name == "pgflows.audit"]
    for text, (instance, _, output) in found.items():
        node = await seen.fetchval("select root_node from df.instances where id = $1", instance)
        [line] = [each for each in lines if f"instance {instance}" in each]
        assert f"role '{USER}'" in line
        assert f"node {node} (SQL)" in line
        assert repr(text)[1:-1] in line
        assert repr(output[:100])[1:-1] in line


async def test_going_back_to_the_role_that_logged_in_gains_nothing(
    database: Database, seen: Connection
) -> None:
    found = await run_all(database, seen, IN_VAIN)
    assert {t: o for t, (_, status, o) in found.items() if status != "completed"} == {}
    rows = await seen.fetch("select distinct who, logged_in, application from corpus.seen")
    assert [tuple(r) for r in rows] == [(USER, USER, "pgflows node")]
    assert await seen.fetchval("select count(*) from corpus.seen") == len(IN_VAIN)


LEFT = [
    "select set_config('search_path', 'corpus', false)",
    "select set_config('my.secret', 'left', false)",
    "create temp table instances (id text, status text)",
    "select pg_advisory_lock(7)",
    "listen df_work",
    "declare kept cursor with hold for select 1",
    "prepare kept as select 1",
    f"select set_config('role', '{USER}', false)",
]
LOOK = """select pg_backend_pid() as pid, concat_ws(' ', current_setting('search_path'),
  nullif(current_setting('my.secret', true), ''), current_setting('role'),
  to_regclass('pg_temp.instances'),
  (select string_agg(name, ',') from pg_cursors where name = 'kept'),
  (select string_agg(name, ',') from pg_prepared_statements where name = 'kept'),
  (select string_agg(c, ',') from pg_listening_channels() c),
  (select count(*) from pg_locks l join pg_database d on d.oid = l.database
    where l.locktype = 'advisory' and d.datname = current_database())) as left"""


async def test_what_a_node_leaves_in_its_session_is_gone_for_the_next(
    database: Database, seen: Connection, owner: Connection
) -> None:
    tidied = (
        "select bool_and(state = 'idle' and query ~* 'unlock_all|^select pg_catalog.set_config') "
        "from pg_stat_activity where application_name = 'pgflows node' and datname = $1"
    )
    admin = await asyncpg.connect(database.admin_dsn)
    found = []

    async def is_tidied() -> bool:
        return bool(await admin.fetchval(tidied, database.name))

    async with running_engine(database):
        for text in (LOOK, *(each for leave in LEFT for each in (leave, LOOK))):
            instance = await seen.fetchval("select df.start($1)", text)
            assert await seen.fetchval("select df.await_instance($1)", instance) == "completed"
            if text == LOOK:
                found.append(json.loads(await seen.fetchval("select df.result($1)", instance)))
            await until(is_tidied)
    await admin.close()
    assert len({f["rows"][0]["pid"] for f in found}) == 1
    assert {f["rows"][0]["left"] for f in found} == {'"$user", public none 0'}


async def test_an_error_of_the_engines_own_kind_fails_the_node(
    database: Database, seen: Connection
) -> None:
    await seen.execute(
        "create function corpus.raise() returns integer language plpgsql as $$ begin "
        "if exists (select from corpus.seen) then raise 'forged' using errcode = 'PF199'; end if; "
        "return 1; end $$"
    )
    text = "select corpus.raise()"
    async with running_engine(database):
        for expected in ("completed", "failed"):
            instance = await seen.fetchval("select df.start($1)", text)
            status = await seen.fetchval("select df.await_instance($1, 10)", instance)
            assert status == expected
            await seen.execute("insert into corpus.seen values ('next')")
    node = await seen.fetchval("select result from df.nodes where instance_id = $1", instance)
    assert "forged" in node


async def test_no_role_sees_the_token_of_a_claim(
    database: Database, seen: Connection, owner: Connection, other: Connection
) -> None:
    """Not in the activity of the engine's sessions, and not in its own node's either."""
    shown = "select string_agg(a.query, ' ') from pg_stat_activity a"
    async with running_engine(database):
        instance = await seen.fetchval("select df.start(df.wait_for_signal('go'))")

        async def claimed() -> object:
            return await owner.fetchval("select token from df._work")

        token = await until(claimed)
        for connection in (seen, other):
            assert str(token) not in str(await connection.fetchval(shown))
        await seen.fetchval("select df.cancel($1)", instance)


MAY_RUN = {
    "pgflows.start",
    "pgflows._restart",
    "pgflows._withdraw",
    "pgflows._open",
    "pgflows._link",
    "pgflows._nodes_of",
    "pgflows._executions_of",
    "pgflows._states_of",
    "pgflows._live_runs",
    "pgflows._failure_of",
    "pgflows._ended_unseen",
    "pgflows.take",
    "pgflows.put",
    "pgflows.finish",
    "pgflows.take_each",
    "pgflows.put_each",
    "pgflows.finish_each",
}


async def test_the_run_role_reads_no_table_of_ours_and_may_call_what_graphs_call(
    database: Database, user: Connection
) -> None:
    theirs = await user.fetchval("select df.start('select 1')")
    run = await asyncpg.connect(database.run_dsn)
    tables = await run.fetch(
        "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'v', 'S') "
        "and c.relnamespace in ('df'::regnamespace, 'pgflows'::regnamespace) and "
        "case c.relkind when 'S' then has_sequence_privilege(c.oid, 'usage, select, update') "
        "else has_table_privilege(c.oid, 'select, insert, update, delete') end"
    )
    assert {r[0] for r in tables} == {"df.instances", "df.nodes", "df._results", "df.vars"}
    functions = await run.fetch(
        "select p.pronamespace::regnamespace || '.' || p.proname from pg_proc p "
        "where p.pronamespace = 'pgflows'::regnamespace and p.proacl is not null "
        "and has_function_privilege(p.oid, 'execute')"
    )
    assert {r[0] for r in functions} == MAY_RUN
    for attempt in (
        "select * from pgflows.frames",
        "select * from pgflows.signing_keys",
        "select * from pgflows.run_login",
        "select pgflows.live_keys()",
        "create function pgflows.mine() returns integer language sql as 'select 1'",
        "create or replace function pgflows.start(workflow text, input jsonb, "
        "idempotency_key text, label text, attributes jsonb) returns uuid "
        "language sql as 'select null'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await run.execute(attempt)
    for call in ("take($1, 'main', 0)", "put($1, 'main', 0, '{}', true, '[]')"):
        with pytest.raises(asyncpg.PostgresError, match="not one that pgflows_run submitted"):
            await run.fetch(f"select * from pgflows.{call}", theirs)  # noqa: S608
    await run.close()


@pytest.mark.parametrize("how", ["dropped", "without login"])
async def test_a_role_that_is_gone_or_locked_out_runs_nothing(database: Database, how: str) -> None:
    """Least of all as whoever the engine's process would log in as by default."""
    name = f"pgflows_gone_{database.name}"
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(f"create role {name} login")
    await admin.execute("select df.grant_usage($1)", name)
    gone = await asyncpg.connect(database.as_role(name))
    instance = await gone.fetchval("select df.start('select current_user')")
    await gone.close()
    if how == "dropped":
        await admin.execute(f"drop owned by {name}")
        await admin.execute(f"drop role {name}")
    else:
        await admin.execute(f"alter role {name} nologin")
    await admin.execute("grant select on all tables in schema df to postgres")
    async with running_engine(database):
        status = await admin.fetchval("select df.await_instance($1)", instance)
    output = await admin.fetchval("select output from df.instance_info($1)", instance)
    if how != "dropped":
        await admin.execute(f"drop owned by {name}")
        await admin.execute(f"drop role {name}")
    await admin.close()
    assert status == "failed"
    assert ("is gone" if how == "dropped" else f"Failed to connect as '{name}'") in output
