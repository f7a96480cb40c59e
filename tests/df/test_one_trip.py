"""A node's second run goes to the server in one trip; it must answer exactly as the first did."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import asyncpg
import pytest

from tests.conftest import Database, until
from tests.df.conftest import running_engine

Connection: TypeAlias = "asyncpg.Connection[Any]"

STATEMENTS = [
    "select 1 as zeta, 'x' as alpha, null::text as nothing",
    "select 7::int2 as a, 9007199254740993::int8 as b, 1.50::numeric as n, 'NaN'::numeric as m",
    "select 0.1::float4 as f, 0.1::float8 + 0.2::float8 as g, 'NaN'::float8 as h",
    "select '-Infinity'::float4 as f, 'Infinity'::float8 as g",
    "select true as t, 'it''s \"x\" \\ ☃'::text as s, 'v'::varchar(9) as v, 'n'::name as n",
    "select '00000000-0000-0000-0000-00000000000a'::uuid as u, date '2024-02-29' as d",
    'select \'{"b": 1, "a": [1, 2.50, null, "x"]}\'::jsonb as j, 1 as "we""ird {name}"',
    "select i as zeta, 'r' || i as a from generate_series(1, 3) i order by i desc",
    "select 1 as a where false",
    "select 1 as a, 2 as a",
    "select 1, 2.5",
    "select now() is not null as x, timestamptz '2024-02-29 12:34:56.789+02' as t",
    "insert into public.effects values (1) returning i, i + 1 as j",
    "insert into public.effects values (1)",
    "update public.effects set i = i + 1",
    "delete from public.effects where i > 1000",
    "values (1, 'b'), (2, 'c')",
    "with a as (insert into public.effects values (5) returning i) select i as got from a",
    "select 1 as a;",
    "/* c */ select 1 as a -- end",
    "select 1/0",
    "select * from no_such_table",
    "select 1; select 2",
    "do $d$ begin null; end $d$",
    "select set_config('x.y', '1', false) as s, current_setting('df.in_workflow') as w",
    "select pg_sleep(0) as v",
]


async def finished(owner: Connection, instance: str) -> tuple[Any, ...]:
    """Status, output and the root's result once the instance has ended."""
    look = (
        "select i.status, n.output, r.result from df.instances i, df.instance_info(i.id) n, "
        "lateral (select result from df.nodes where instance_id = i.id and id = i.root_node) r "
        "where i.id = $1 and i.status in ('completed', 'failed')"
    )
    return tuple(await until(lambda: owner.fetchrow(look, instance), what=f"end of {instance}"))


@pytest.mark.parametrize("text", STATEMENTS)
async def test_the_second_run_answers_as_the_first(
    database: Database, owner: Connection, text: str
) -> None:
    await owner.execute("create table public.effects (i int)")
    async with running_engine(database):
        runs = []
        for _ in range(4):
            await owner.execute("delete from public.effects")
            await owner.execute("insert into public.effects values (1)")
            instance = await owner.fetchval("select df.start(df.sql($1))", text)
            told = await finished(owner, instance)
            effects = [r["i"] for r in await owner.fetch("select i from public.effects order by 1")]
            runs.append((told, effects))
    assert runs == [runs[0]] * 4


async def test_values_of_other_kinds_are_not_taken_for_the_same(
    database: Database, owner: Connection
) -> None:
    async with running_engine(database):
        outputs = []
        for value in ("1", "1.50", "'text'", "true", "5000000000", "1", "'{\"a\": 1}'::jsonb"):
            flow = "select df.start(df.seq(df.as($1, 'a'), 'select $a as x'))"
            instance = await owner.fetchval(flow, f"select {value} as v")
            outputs.append((await finished(owner, instance))[1])
    assert outputs == [
        '{"rows":[{"x":1}],"row_count":1}',
        '{"rows":[{"x":"1.50"}],"row_count":1}',
        '{"rows":[{"x":"text"}],"row_count":1}',
        '{"rows":[{"x":true}],"row_count":1}',
        '{"rows":[{"x":5000000000}],"row_count":1}',
        '{"rows":[{"x":1}],"row_count":1}',
        '{"rows":[{"x":"{\\"a\\":1}"}],"row_count":1}',
    ]


async def test_what_a_node_prepared_does_not_meet_the_next(
    database: Database, owner: Connection
) -> None:
    async with running_engine(database):
        for _ in range(3):
            instance = await owner.fetchval("select df.start('prepare mine as select 1')")
            assert (await finished(owner, instance))[0] == "completed"
            instance = await owner.fetchval("select df.start('select 1 as a')")
            assert (await finished(owner, instance))[0] == "completed"


LITTER = """
create function public.litter() returns int language plpgsql as $f$
begin
  perform set_config('x.y', '1', false), set_config('search_path', 'pg_temp', false);
  perform set_config('default_transaction_read_only', 'on', false);
  perform set_config('statement_timeout', '5000', false), set_config('df.in_workflow', '', false);
  create temp table rubbish as select 1;
  execute 'declare c cursor with hold for select 1';
  listen rubbish;
  perform nextval('public.numbers'), pg_advisory_lock(4711);
  return 1;
end $f$;
create function public.litter_late() returns trigger language plpgsql as $f$
begin
  perform public.litter();
  return null;
end $f$;
create sequence public.numbers;
create table public.late (i int);
create constraint trigger late after insert on public.late deferrable initially deferred
  for each row execute function public.litter_late();
"""
SEEN = """
select current_setting('x.y', true) as y, current_setting('search_path') as p,
  current_setting('default_transaction_read_only') as r, current_setting('statement_timeout') as t,
  current_setting('df.in_workflow') as w, to_regclass('pg_temp.rubbish') is null as g,
  (select count(*) from pg_cursors where name = 'c') as c,
  (select count(*) from pg_listening_channels()) as l,
  (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as a
"""
NO_LOCK = (
    "select count(*) = 0 from pg_locks l join pg_database d on d.oid = l.database "
    "where l.locktype = 'advisory' and d.datname = current_database()"
)
CLEAN = {
    "y": None,
    "p": '"$user", public',
    "r": "off",
    "t": "0",
    "w": "true",
    "g": True,
    "c": 0,
    "l": 0,
    "a": 0,
}


@pytest.mark.parametrize(
    "litter", ["select public.litter() as i", "insert into public.late values (1)"]
)
async def test_what_a_node_leaves_in_its_session_does_not_meet_the_next(
    database: Database, owner: Connection, litter: str
) -> None:
    await owner.execute(LITTER)
    async with running_engine(database):
        for _ in range(4):
            instance = await owner.fetchval("select df.start(df.seq($1, $2))", litter, SEEN)
            status, output, _ = await finished(owner, instance)
            assert status == "completed", output
            [row] = json.loads(output)["rows"]
            assert row | {"y": row["y"] or None} == CLEAN
        await until(lambda: owner.fetchval(NO_LOCK), what="the locks of the last node's session")


async def test_a_session_keeps_no_lock_while_it_is_idle(
    database: Database, owner: Connection
) -> None:
    async with running_engine(database):
        for text in ["select pg_advisory_lock(4711) is null as a"] * 3 + [
            "select 1 / (pg_advisory_lock(4711) is not null)::int - 1 / 0 as a"
        ] * 2:
            instance = await owner.fetchval("select df.start($1)", text)
            await finished(owner, instance)
            assert await until(lambda: owner.fetchval(NO_LOCK), what="the lock of an idle session")


async def test_a_compiled_statement_that_cannot_be_prepared_fails_alone(
    database: Database, owner: Connection
) -> None:
    run = await asyncpg.connect(database.run_dsn)
    engines = "select array_agg(epoch_id) from df._worker_epoch"
    async with running_engine(database):
        before = await until(lambda: owner.fetchval(engines), what="the engine")
        texts = ["/*pgflows*/ select 1 nonsense here", "/*pgflows*/ select 2 as x"] * 2
        starts = "select array_agg(df.start(df.sql(t))) from unnest($1::text[]) t"
        ended = [await finished(owner, i) for i in await run.fetchval(starts, texts)]
        assert await owner.fetchval(engines) == before
    await run.close()
    assert [status for status, _, _ in ended] == ["failed", "completed"] * 2
    assert "syntax error" in ended[0][1]
    assert ended[2][1] == ended[0][1]
