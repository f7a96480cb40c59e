"""Search-path tricks: another role's functions, operators and tables under our names."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.database.connections import Connection
from pgflows.database.migrations import migrate
from tests.conftest import OWNER, Database
from tests.df.conftest import OTHER, USER, running_engine

# Better matches than those of pg_catalog, which are polymorphic, variadic or of other types.
FUNCTIONS = [
    ("to_json", "text"),
    ("to_jsonb", "text"),
    ("array_fill", "text, integer[]"),
    ("array_append", "text[], text"),
    ("array_length", "text[], integer"),
    ("array_position", "text[], text"),
    ("array_remove", "text[], text"),
    ("array_to_string", "text[], text"),
    ("cardinality", "text[]"),
    ("concat_ws", "text, text, text"),
    ("count", "text"),
    ("format", "text, text"),
    ("format", "text, text, text"),
    ("json_build_object", "text, text"),
    ("jsonb_build_object", "text, text"),
    ("jsonb_build_object", "text, text, text, text"),
    ("unnest", "text[]"),
]
OPERATORS = [
    ("||", "text[]", "text[]"),
    ("||", "text[]", "text"),
    ("||", "text", "text[]"),
    ("||", "text", "bigint"),
    ("||", "text", "integer"),
    ("||", "text", "varchar"),
    ("=", "varchar", "varchar"),
    ("=", "varchar", "text"),
    ("=", "text", "varchar"),
    ("=", "regrole", "regrole"),
    ("=", "regrole", "oid"),
    ("=", "oid", "regrole"),
    ("=", "text[]", "text[]"),
    ("<>", "varchar", "text"),
    ("~", "varchar", "varchar"),
    ("~", "varchar", "text"),
]
TABLES = (
    "select n.nspname || '.' || c.relname from pg_class c "
    "join pg_namespace n on n.oid = c.relnamespace "
    "where n.nspname in ('df', 'pgflows') and c.relkind = 'r'"
)
TRAP = "returns {} language plpgsql as $$ begin raise exception 'trapped: {}'; end $$"
GRAPH = """select df.seq(df.as('select 1 as n, ''x'' as t', 'a'),
  df.seq(df.if('select $a.n = 1', df.join('select 2 as b, 1 as a', 'select $a.t as t'), 'select 3'),
         df.loop(df.seq('insert into corpus.made values ($a.n) returning n', df.break('4')))))"""


async def lay_traps(database: str, admin_dsn: str) -> None:
    """Lets the other role write to schema public, and does so in its name."""
    admin = await asyncpg.connect(admin_dsn, database=database)
    await admin.execute(f"grant create on schema public to {OTHER}; set role {OTHER}")
    for n, (name, arguments) in enumerate(FUNCTIONS):
        await admin.execute(
            f"create function public.{name}({arguments}) "
            + TRAP.format("text", f"function {n} {name}({arguments})")
        )
    for n, (name, left, right) in enumerate(OPERATORS):
        result = "text" if name == "||" else "boolean"
        trap = TRAP.format(result, f"operator {left} {name} {right}")
        await admin.execute(f"create function public.trap_{n}({left}, {right}) {trap}")
        await admin.execute(
            f"create operator public.{name} (function = public.trap_{n}, "
            f"leftarg = {left}, rightarg = {right})"
        )
    await admin.close()


@pytest.fixture
async def trapped(database: Database, user: Connection) -> Connection:
    """The user, in a database where another role may write to schema public, and did."""
    await user.execute("create table corpus.made (n integer)")
    await lay_traps(database.name, database.admin_dsn)
    return user


async def test_the_traps_work(trapped: Connection) -> None:
    for text in ("select to_json('a'::text)", "select array['a'] || array['b']"):
        with pytest.raises(asyncpg.RaiseError, match="trapped"):
            await trapped.execute(text)


async def test_a_role_that_uses_df_runs_nothing_of_anothers(
    database: Database, trapped: Connection, owner: Connection
) -> None:
    """Twice, because the second run of a statement takes another way."""
    async with running_engine(database):
        for _ in range(2):
            graph = await trapped.fetchval(GRAPH)
            instance = await trapped.fetchval("select df.start($1, 'label')", graph)
            assert await trapped.fetchval("select df.await_instance($1)", instance) == "completed"
            waiting = await trapped.fetchval("select df.start(df.wait_for_signal('go', 60))")
            await trapped.execute("select df.signal($1, 'go', '1')", waiting)
            assert await trapped.fetchval("select df.await_instance($1)", waiting) == "completed"
            for reader in (trapped, owner):
                await reader.fetch("select * from df.list_instances('completed', 10, 'label')")
                await reader.fetch("select * from df.list_instances()")
                await reader.fetch("select * from df.instance_info($1)", instance)
                await reader.fetch("select * from df.instance_nodes($1)", instance)
                await reader.fetch("select * from df.instance_executions($1)", instance)
                await reader.fetchval("select df.explain($1)", instance)
                await reader.fetchval("select df.explain($1)", graph)
    assert await trapped.fetchval("select df.result($1)", instance)
    await trapped.execute("select df.setvar('a', 'b'), df.getvar('a'), df.unsetvar('a')")
    for wrong in ("df.sleep(-1)", "df.as('select 1', '1')", "df.wait_for_schedule('x')"):
        with pytest.raises(asyncpg.PostgresError, match=r"^(?!trapped)"):
            await trapped.execute(f"select {wrong}")
    await trapped.execute("select df.http('http://a/', 'POST', 'b', '{\"c\": 1}')")
    await trapped.execute("select df.cancel(df.start('select 1'), 'enough')")


async def test_the_owner_migrates_without_running_or_keeping_anything_of_anothers(
    database: Database, user: Connection, admin: Connection
) -> None:
    name = f"{database.name}_fresh"
    await admin.execute(f"create database {name} template template0 owner {OWNER}")
    await lay_traps(name, database.admin_dsn)
    await migrate(
        database.dsn.replace(database.name, name),
        Settings(run_dsn=database.run_dsn.replace(database.name, name)),
    )
    fresh = await asyncpg.connect(
        database.admin_dsn, database=name, server_settings={"search_path": "pg_catalog"}
    )
    kept = await fresh.fetch(
        "select d.classid::regclass::text, d.objid::bigint from pg_depend d "
        "join pg_proc p on p.oid = d.refobjid and d.refclassid = 'pg_proc'::regclass "
        "where p.proowner = $1::text::regrole and d.classid <> 'pg_operator'::regclass",
        OTHER,
    )
    await fresh.close()
    await admin.execute(f"drop database {name}")
    assert kept == []


async def test_temporary_tables_stand_in_for_none_of_ours(
    database: Database, user: Connection, owner: Connection
) -> None:
    async with running_engine(database):
        for name in [str(r[0]) for r in await owner.fetch(TABLES)]:
            short = name.split(".")[1]
            await user.execute(
                f"create temp table if not exists {short} (id text, instance_id text)"
            )
        await user.execute(
            "create temp table pg_roles (oid oid, rolname text, rolcanlogin boolean)"
        )
        instance = await user.fetchval("select df.start('select 1', 'x')")
        assert await user.fetchval("select df.await_instance($1)", instance) == "completed"
        assert json.loads(await user.fetchval("select df.result($1)", instance))["row_count"] == 1
        assert len(await user.fetch("select * from df.list_instances()")) == 1
        assert len(await user.fetch("select * from df.instance_nodes($1)", instance)) == 1
    submitted = await owner.fetchval("select submitted_by::text from df.instances")
    assert submitted == USER


async def test_every_definer_function_pins_its_path_with_temporary_objects_last(
    owner: Connection,
) -> None:
    rows = await owner.fetch(
        "select p.oid::regprocedure::text, p.proconfig[1] as path from pg_proc p "
        "where p.pronamespace in ('df'::regnamespace, 'pgflows'::regnamespace) and p.prosecdef"
    )
    assert len(rows) > 10
    assert {r["oid"] for r in rows if r["path"] != "search_path=pg_catalog, pg_temp"} == set()


CHECKED = {"_begin_sealed", "_checkpoint", "_complete", "_fence", "_prepared"}


async def test_public_may_enter_no_schema_and_execute_few_definer_functions(
    owner: Connection,
) -> None:
    """These do nothing without a seal or a claim's token, and _prepared reads one's own."""
    opened = await owner.fetch(
        "select p.proname from pg_proc p "
        "where p.pronamespace in ('df'::regnamespace, 'pgflows'::regnamespace) "
        "and p.prosecdef and has_function_privilege('public', p.oid, 'execute')"
    )
    assert {r["proname"] for r in opened} == CHECKED
    for schema in ("df", "pgflows"):
        allowed = "select has_schema_privilege('public', $1, 'usage, create')"
        assert await owner.fetchval(allowed, schema) is False
