"""Start, claim, list, wake and read among many finished instances: the same as among few?"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

import asyncpg
from rich.console import Console

from pgflows.database.connections import ENGINE, connect
from tests.bench.harness import NOTHING_LEFT, ORDER, TWO, WORKFLOW, deployment, report, until_true
from tests.bench.steps import START, latencies

# finished runs as they would have been left: an instance, its run, a step and a node each
FILL = """
with made as (
  insert into pgflows.instances
    (instance_id, workflow, version, status, input, output, label, started_by, created_at,
      ended_at)
  select pgflows.uuid7(), $1, '1', 'completed', $2::jsonb, $2::jsonb, 'l' || n % 100, 'pgflows',
    at, at
  from (
    select n, now() + (n - $3) * interval '1 microsecond' as at
    from generate_series($3::int, $4::int) n
  ) s
  returning instance_id, created_at, label
), ran as (
  insert into df.instances
    (id, label, root_node, status, submitted_by, created_at, updated_at, completed_at)
  select lpad(to_hex($3 + row_number() over ()), 8, '0'), m.label, '00000000', 'completed',
    'pgflows_run'::regrole, m.created_at, m.created_at, m.created_at from made m
  on conflict do nothing
  returning id, created_at
), linked as (
  insert into pgflows.df_runs (df_id, instance_id, n, submitted_by)
  select r.id, m.instance_id, 1, 'pgflows_run'::regrole
  from (select id, row_number() over () as n from ran) r
  join (select instance_id, row_number() over () as n from made) m using (n)
), stepped as (
  insert into pgflows.step_runs
    (instance_id, step_key, step, seq, status, key_id, input, output, attempts, ended_at)
  select m.instance_id, 'charge_payment#1', 'charge_payment', 1, 'completed', 'none', $2::jsonb,
    $2::jsonb, 1, m.created_at from made m
)
insert into df.nodes (id, instance_id, node_type, status, result, submitted_by)
select '00000000', r.id, 'SQL', 'completed', '{"rows":[],"row_count":0}', 'pgflows_run'::regrole
from ran r
"""
CHUNK = 50_000
COUNTED = "select min(until) >= $1 from pgflows.counted_until"
QUERIES = {
    "claim": "select * from df._claim('00000000-0000-0000-0000-000000000001'::uuid, 100)",
    "heartbeat": "select * from df._heartbeat('00000000-0000-0000-0000-000000000001'::uuid)",
    "df list": "select * from df.list_instances('completed', 100)",
    "df list by label": "select * from df.list_instances(null, 100, 'l7')",
    "list": "select pgflows.list_instances(null, 'completed', null, null, 100, null)",
    "list by label": "select pgflows.list_instances(null, null, 'l7', null, 100, null)",
    "df metrics": "select * from df.metrics()",
    "stats": "select pgflows.stats()",
}
PLANS = {
    "claim": "select * from df._work w where w.owner is null and w.failures < 2 "
    "and w.wake_at <= statement_timestamp() order by w.wake_at limit 100",
    "page": "select * from df.instances i where i.status = 'completed' "
    "order by i.created_at desc, i.id limit 100",
    "page by label": "select * from df.instances i where i.label = 'l7' "
    "order by i.created_at desc, i.id limit 100",
    "run": "select * from pgflows.df_runs r join pgflows.instances i using (instance_id) "
    "where r.df_id = '00000007'",
    "step": "select * from pgflows.step_runs s where s.instance_id = "
    "(select instance_id from pgflows.df_runs where df_id = '00000007')",
}


@dataclass
class Figures:
    finished: int
    start_ms: float
    three_steps_p50_ms: float
    three_steps_p99_ms: float
    claim_ms: float
    heartbeat_ms: float
    df_list_ms: float
    df_list_by_label_ms: float
    list_ms: float
    list_by_label_ms: float
    df_metrics_ms: float
    stats_ms: float


async def median_ms(conn: asyncpg.Connection[Any], query: str, *args: object) -> float:
    took = []
    for _ in range(40):
        began = time.perf_counter()
        await conn.fetch(query, *args)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


async def fill(conn: asyncpg.Connection[Any], begin: int, end: int) -> None:
    for first in range(begin, end, CHUNK):
        last = min(first + CHUNK, end) - 1
        await conn.execute(FILL, WORKFLOW, ORDER, first, last)
    await conn.execute("vacuum analyze")
    began = await conn.fetchval("select clock_timestamp()")
    while not await conn.fetchval(COUNTED, began):
        await conn.execute("select df._count(), pgflows._count()")  # as the clean-up does
        await asyncio.sleep(1)


async def measure(conn: asyncpg.Connection[Any], dsn: str, finished: int) -> Figures:
    async with deployment(dsn, *TWO):
        taken = await latencies(conn)
        await until_true(conn, NOTHING_LEFT)
    start = await median_ms(conn, START, WORKFLOW, ORDER)
    read = [await median_ms(conn, query) for query in QUERIES.values()]
    await conn.execute("select df.cancel(i.id) from df.instances i where i.status = 'pending'")
    return Figures(
        finished, start, statistics.median(taken), taken[int(len(taken) * 0.99) - 1], *read
    )


async def run(dsn: str, options: argparse.Namespace) -> None:
    conn = await asyncpg.connect(dsn, command_timeout=3600)
    filled = 1
    for finished in (10_000, options.finished):
        await fill(conn, filled, finished)
        filled = finished
        report([await measure(conn, dsn, finished)], f"among {finished:,} finished instances")
    await conn.close()
    conn = await connect(dsn, ENGINE)  # as an engine's sessions
    out = Console(width=140)
    for name, query in PLANS.items():
        out.print(f"\n[bold]{name}[/bold]")
        for row in await conn.fetch(f"explain (analyze, costs off, timing off) {query}"):
            out.print(row[0], markup=False, highlight=False)
    await conn.close()
