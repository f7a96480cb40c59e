"""Graphs that are started often: cached by their text, and written as the first time."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import asyncpg
import pytest

from pgflows.database.connections import Connection
from tests.conftest import Database

CACHE = (
    "select df._cache_graph(sha256(convert_to($1, 'UTF8')), array_agg(f.*)) "
    "from df._flatten(df._read_graph($1)) f"
)
CACHED = "select count(*) from df._cached_graphs"
GRAPHS = [
    "df.sql('select 1')",
    "df.seq('select 1', df.seq(df.as('select 2', 'a'), 'select $a'))",
    "df.if('select true', df.sleep(1), 'select 2')",
    "df.seq(df.as('select 1', 'r'), df.if_rows('r', 'select 1', df.break('x')))",
    "df.loop(df.as(df.loop('select 1', 'select false'), 'n'), df.seq('select 1', 'select false'))",
    "df.join3('select 1', df.race('select 2', df.wait_for_signal('s', 5)), df.join('a', 'b'))",
    "df.seq(df.wait_for_schedule('* * * * *'), df.http('http://peer/', 'POST', '{\"a\": 1}'))",
    "df.seq(df.sql('{\"condition_node\":\"00000000\"}'), df.as('{\"extra_nodes\":[]}', 'e'))",
]


async def drawn(conn: Connection, instance: str) -> tuple[list[Any], set[str]]:
    """The nodes of an instance as a tree without ids, and the ids."""
    rows = await conn.fetch("select * from df.nodes where instance_id = $1", instance)
    nodes = {r["id"]: r for r in rows}

    def draw(node_id: str | None) -> list[Any] | None:
        if node_id is None:
            return None
        n = nodes[node_id]
        query, below = n["query"], []
        if n["node_type"] in ("IF", "LOOP", "JOIN") and query is not None:
            spec = json.loads(query)
            children = (spec.pop("condition_node", None), *spec.pop("extra_nodes", ()))
            query, below = spec, [draw(child) for child in children]
        own = [n[c] for c in ("node_type", "result_name", "status", "submitted_by", "database")]
        return [*own, query, draw(n["left_node"]), draw(n["right_node"]), below]

    root = await conn.fetchval("select root_node from df.instances where id = $1", instance)
    return draw(root) or [], set(nodes)


@pytest.mark.parametrize("expression", GRAPHS)
async def test_a_cached_graph_is_written_as_the_first_time(
    user: Connection, owner: Connection, expression: str
) -> None:
    graph = await user.fetchval(f"select df._envelope({expression})")
    first = await user.fetchval("select df.start($1)", graph)
    await owner.execute(CACHE, graph)
    assert await owner.fetchval(CACHED) == 1
    again = [await user.fetchval("select df.start($1)", graph) for _ in range(2)]
    tree, ids = await drawn(owner, first)
    for instance in again:
        found, others = await drawn(owner, instance)
        assert found == tree
        assert len(others) == len(ids)
        assert not others & ids
    work = await owner.fetch("select prepared, vars from df._work")
    assert [tuple(r) for r in work] == [(None, "{}")] * 3


async def test_a_graph_that_is_started_often_is_cached_once(
    user: Connection, owner: Connection
) -> None:
    starts = "select count(df.start('select 1')) from generate_series(1, 1500)"
    assert await user.fetchval(starts) == 1500  # all unlucky: one in 10^10
    assert await owner.fetchval(CACHED) == 1


async def test_nobody_waits_for_a_session_that_caches_a_graph(
    user: Connection, owner: Connection, database: Database
) -> None:
    other = await asyncpg.connect(database.dsn)
    async with other.transaction():
        await other.execute(CACHE, "select 1")
        async with asyncio.timeout(5):
            await owner.execute(CACHE, "select 1")
            assert await user.fetchval("select df.start('select 1')")
        assert await owner.fetchval(CACHED) == 0
    await other.close()
    assert await owner.fetchval(CACHED) == 1


async def test_a_cached_graph_is_dropped_after_an_hour(owner: Connection) -> None:
    for graph in ("select 1", "select 2"):
        await owner.execute(CACHE, graph)
    await owner.execute(
        "update df._cached_graphs set created_at = now() - interval '61 minutes' "
        "where hash = sha256('select 1')"
    )
    await owner.execute("select df._prune($1, 10)", dt.timedelta(days=30))
    left = await owner.fetch("select hash = sha256('select 2') from df._cached_graphs")
    assert [r[0] for r in left] == [True]
    assert await owner.fetchval("select count(*) from df._cached_nodes") == 1
