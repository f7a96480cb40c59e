"""Graphs: what the constructors splice, what a start accepts and writes, what it refuses."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pgflows.database.connections import Connection

LEAF = '{"node_type":"SQL","query":"select 1"}'


def then(left: str, right: str) -> str:
    return f'{{"node_type":"THEN","left_node":{left},"right_node":{right}}}'


def balanced(levels: int) -> str:
    return LEAF if levels == 0 else then(balanced(levels - 1), balanced(levels - 1))


def chain(length: int) -> str:
    graph = LEAF
    for _ in range(length):
        graph = then(LEAF, graph)
    return graph


async def counts(conn: Connection, *tables: str) -> list[int]:
    """Rows in tables of schema df."""
    return [await conn.fetchval(f"select count(*) from df.{table}") for table in tables]  # noqa: S608


async def refusal(conn: Connection, statement: str, *args: object) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await conn.fetch(statement, *args)
    return refused.value


async def test_every_character_survives_the_constructors(user: Connection) -> None:
    for code in (*range(1, 256), 0x2603, 0x1F600):
        text = f"select '{chr(code)}\"\\'"
        graph = await user.fetchval("select df.seq($1, df.http('http://h/', 'POST', $1))", text)
        node = json.loads(graph)
        assert node["left_node"]["query"] == text
        assert json.loads(node["right_node"]["query"])["body"] == text


async def test_a_node_written_by_hand_is_put_in_order(user: Connection) -> None:
    mine = ' { "query" : "select 1", "result_name": "a", "node_type" : "SQL", "more": 1 }'
    node = '{"node_type":"SQL","query":"select 1","result_name":"a"}'
    assert await user.fetchval("select df.seq($1, $1)", mine) == then(node, node)


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "{", "[1]", '{"node_type": "NOPE"}', '{"node_type":null}', '{"node_type"']
)
async def test_what_is_no_node_is_a_statement(user: Connection, text: str) -> None:
    graph = json.loads(await user.fetchval("select df.seq($1, 'select 1')", text))
    assert graph["left_node"] == {"node_type": "SQL", "query": text}


@pytest.mark.parametrize(
    "text",
    [
        '{"query": 5, "node_type": "SQL"}',
        '{"left_node": "select 1", "node_type": "THEN"}',
        '{"node_type": "JOIN", "extra_nodes": ["00000000"]}',
        '{"node_type": "IF", "condition_node": "00000000"}',
    ],
)
async def test_a_node_that_cannot_be_read_is_refused(user: Connection, text: str) -> None:
    error = await refusal(user, "select df.seq($1, 'select 1')", text)
    assert error.sqlstate == "PF101"


async def test_names_are_replaced_however_long(user: Connection) -> None:
    long = "n" * 500
    graph = await user.fetchval("select df.as(df.as(df.seq('a', 'b'), $1), 'x')", long)
    assert json.loads(graph)["result_name"] == "x"
    assert graph.count("result_name") == 1
    inner = await user.fetchval("select df.as(df.seq('a', df.as('b', 'inner')), 'outer')")
    assert json.loads(inner)["right_node"]["result_name"] == "inner"


async def test_operators_nest(user: Connection) -> None:
    graph = await user.fetchval("select 'c' ?> ('ü' ?> ('a' ~> 'b') !> 'd') !> ('e' & 'f' |=> 'j')")
    function = await user.fetchval(
        "select df.if('c', df.if('ü', df.seq('a', 'b'), 'd'), df.as(df.join('e', 'f'), 'j'))"
    )
    assert graph == function


@pytest.mark.parametrize(
    "expression", ["'a' !> 'b'", "('a' ?> 'b') ~> 'c'", "df.start('a' ?> 'b')"]
)
async def test_half_an_if_is_refused(user: Connection, expression: str) -> None:
    error = await refusal(user, f"select {expression}")
    assert error.sqlstate == "PF104"


@pytest.mark.parametrize(
    ("expression", "valid"),
    [
        ("*/5 * * * *", True),
        ("0 9 * * MON-FRI", True),
        ("0,30 0-6/2 1 jan,dec sun", True),
        ("30 0 9 1 * *", True),
        ("0 0 1 1 7", True),
        ("", False),
        ("* * * *", False),
        ("60 * * * *", False),
        ("* 24 * * *", False),
        ("* * 0 * *", False),
        ("* * * 13 *", False),
        ("* * * * 8", False),
        ("*/0 * * * *", False),
        ("5-1 * * * *", False),
        ("1, * * * *", False),
        ("* * * FOO *", False),
        ("MON * * * *", False),
    ],
)
async def test_schedules_are_checked(user: Connection, expression: str, *, valid: bool) -> None:
    if valid:
        assert expression in await user.fetchval("select df.wait_for_schedule($1)", expression)
    else:
        error = await refusal(user, "select df.wait_for_schedule($1)", expression)
        assert error.sqlstate == "PF104"


@pytest.mark.parametrize(
    ("graph", "path"),
    [
        ('{"node_type":"SQL",', "root"),
        ('{"node_type":"SQL"}', "root"),
        (f'{{"node_type":"THEN","left_node":{LEAF}}}', "root"),
        (f'{{"node_type":"IF","left_node":{LEAF},"right_node":{LEAF}}}', "root"),
        (f'{{"node_type":"SQL","query":"x","left_node":{LEAF}}}', "root"),
        ('{"node_type":"SLEEP","query":"soon"}', "root"),
        ('{"node_type":"SQL","query":"x","result_name":"1x"}', "root"),
        ('{"node_type":"SQL","query":"\\u0000"}', "root"),
        (then(LEAF, then('{"node_type":"NOPE"}', LEAF)), "root.right.left"),
        (then(LEAF, then("5", LEAF)), "root.right"),
        (then("5", LEAF), "root"),
    ],
)
async def test_a_bad_graph_is_refused_with_its_place(
    user: Connection, graph: str, path: str
) -> None:
    error = await refusal(user, "select df.start($1)", graph)
    assert error.sqlstate == "PF101"
    assert json.loads(error.as_dict()["detail"])["path"] == path


async def test_the_limits_of_a_graph(user: Connection, owner: Connection) -> None:
    assert await user.fetchval("select df.start($1)", chain(256))
    error = await refusal(user, "select df.start($1)", chain(257))
    assert (error.sqlstate, json.loads(error.as_dict()["detail"])) == (
        "PF103",
        {"field": "depth", "limit": 256},
    )
    assert await user.fetchval("select df.start($1)", balanced(12))
    error = await refusal(user, "select df.start($1)", balanced(13))
    assert json.loads(error.as_dict()["detail"]) == {"field": "nodes", "limit": 10000}
    assert await owner.fetchval("select count(*) from df.instances") == 2


async def test_a_large_deep_graph_starts_at_once(user: Connection, owner: Connection) -> None:
    graph = balanced(4)
    for _ in range(240):
        graph = then(then(balanced(4), LEAF), graph)
    await user.execute("set statement_timeout = '3s'")
    instance = await user.fetchval("select df.start($1)", graph)
    nodes = await user.fetch("select * from df.instance_nodes($1)", instance)
    assert len(nodes) == graph.count("node_type") > 8000


async def test_a_start_writes_the_tree(user: Connection, owner: Connection) -> None:
    graph = "df.if('select true', df.as(df.join3('a', 'b', 'c'), 'j'), df.sleep(3))"
    instance = await user.fetchval(f"select df.start({graph}, 'a label')")
    assert len(instance) == 8
    nodes = {
        n["id"]: n
        for n in await user.fetch("select * from df.nodes where instance_id = $1", instance)
    }
    row = await user.fetchrow("select * from df.instances where id = $1", instance)
    assert row is not None
    assert (row["label"], row["status"], row["completed_at"]) == ("a label", "pending", None)
    root = nodes[row["root_node"]]
    condition = nodes[json.loads(root["query"])["condition_node"]]
    join = nodes[root["left_node"]]
    [extra] = json.loads(join["query"])["extra_nodes"]
    assert (root["node_type"], condition["query"]) == ("IF", "select true")
    assert (join["node_type"], join["result_name"]) == ("JOIN", "j")
    arms = (join["left_node"], join["right_node"], extra)
    assert [nodes[arm]["query"] for arm in arms] == ["a", "b", "c"]
    assert nodes[root["right_node"]]["query"] == "3"
    assert {n["status"] for n in nodes.values()} == {"pending"}
    assert await counts(owner, "_work", "_submissions", "_requests") == [1, 0, 0]


async def test_a_start_is_undone_with_its_transaction(user: Connection, owner: Connection) -> None:
    transaction = user.transaction()
    await transaction.start()
    assert await user.fetchval("select df.start('select 1')")
    await transaction.rollback()
    assert await counts(owner, "instances", "nodes", "_work") == [0, 0, 0]


async def test_a_prepared_graph_is_known_again(user: Connection, owner: Connection) -> None:
    graph = await owner.fetchval("select df.seq('select 1', df.join('select 2', 'select 3'))")
    for _ in range(2):
        await owner.execute("select df._prepare($1)", graph)
    one = await user.fetchval("select df.start($1)", graph)
    two = await user.fetchval("select df.start($1 || ' ')", graph)
    prepared = "select instance_id, prepared is not null from df._work order by 1"
    known = {r[0]: r[1] for r in await owner.fetch(prepared)}
    assert known == {one: True, two: False}
    query = "select query from df.instance_nodes($1) where query is not null order by 1"
    shapes = [await user.fetch(query, instance) for instance in (one, two)]
    assert shapes[0] == shapes[1]
