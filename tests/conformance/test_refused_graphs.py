"""What df.start and the constructors say of JSON that is no graph."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from pgflows.database.connections import Connection

SQL = {"node_type": "SQL", "query": "select 1"}
BRANCHES = {"left_node": SQL, "right_node": SQL}


def config(**query: Any) -> str:
    return json.dumps(query)


ROOT = "Invalid durable function: "
GRAPH = "Invalid durable function graph: "


@pytest.mark.parametrize(
    ("graph", "parts"),
    [
        (
            {"node_type": "NOT_A_NODE"},
            [f"{ROOT}Unknown node_type 'NOT_A_NODE'", "Valid types: SQL"],
        ),
        ({"node_type": "sql", "query": "select 1"}, [f"{ROOT}Unknown node_type 'sql'"]),
        (
            {"node_type": "SQL", "query": 5},
            [f"{ROOT}Malformed Durofut JSON with node_type 'SQL'", "string"],
        ),
        (
            {"node_type": "LOOP", "left_node": "00000000"},
            ["Malformed Durofut JSON with node_type 'LOOP'", "Durofut children must be JSON obj"],
        ),
        (
            {"node_type": "JOIN", "extra_nodes": ["00000000"]} | BRANCHES,
            [f"{ROOT}Malformed", "extra_nodes entries must be Durofut JSON objects"],
        ),
        (
            {"node_type": "IF", "condition_node": "00000000"} | BRANCHES,
            [f"{ROOT}Malformed", "condition_node must be a Durofut JSON object"],
        ),
        (
            {"node_type": "IF", "query": config(condition_node="00000000")} | BRANCHES,
            [f"{GRAPH}root: condition_node in IF must be a first-class Durofut field"],
        ),
        (
            {"node_type": "LOOP", "left_node": SQL, "query": config(condition_node=SQL)},
            [f"{GRAPH}root: condition_node in LOOP must be a first-class Durofut field"],
        ),
        (
            {"node_type": "JOIN", "query": config(extra_nodes=["00000000"])} | BRANCHES,
            [f"{GRAPH}root: extra_nodes in JOIN must be a first-class Durofut field"],
        ),
        (
            {"node_type": "LOOP", "left_node": SQL, "condition_node": SQL, "query": "no json"},
            [f"{GRAPH}root: query in LOOP must be valid JSON config: "],
        ),
        (
            {"node_type": "LOOP", "left_node": SQL, "condition_node": SQL, "query": "[1]"},
            [f"{GRAPH}root: query in LOOP must be a JSON config object"],
        ),
        (
            {"node_type": "JOIN", "extra_nodes": [SQL], "query": "{"} | BRANCHES,
            [f"{GRAPH}root: query in JOIN must be valid JSON config: "],
        ),
        (
            SQL | {"condition_node": SQL},
            [f"{GRAPH}root: condition_node is not valid for SQL nodes"],
        ),
        (SQL | {"extra_nodes": [SQL]}, [f"{GRAPH}root: extra_nodes is not valid for SQL nodes"]),
        (
            {"node_type": "THEN", "left_node": SQL, "right_node": {"node_type": "NOPE"}},
            [f"{GRAPH}root.right: Unknown node_type 'NOPE'"],
        ),
        (
            {"node_type": "LOOP", "left_node": {"query": "select 1"}},
            [f"{GRAPH}root.left: failed to deserialize Durofut child: missing field `node_type`"],
        ),
        (
            {"node_type": "LOOP", "left_node": SQL, "condition_node": {"node_type": "NOPE"}},
            [f"{GRAPH}root.condition_node: Unknown node_type 'NOPE'"],
        ),
        (
            {"node_type": "JOIN", "extra_nodes": [SQL, {"node_type": "NOPE"}]} | BRANCHES,
            [f"{GRAPH}root.extra_nodes[1]: Unknown node_type 'NOPE'"],
        ),
    ],
    ids=lambda value: json.dumps(value)[:90] if isinstance(value, dict) else "",
)
async def test_a_start_says_what_is_wrong_with_a_graph_and_where(
    actor: Connection, graph: dict[str, Any], parts: list[str]
) -> None:
    for text in (json.dumps(graph), json.dumps(graph, separators=(",", ":"))):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await actor.fetchval("select df.start($1)", text)
        assert all(part in str(refused.value) for part in parts), str(refused.value)


@pytest.mark.parametrize("levels", [257, 3_000, 30_000])
async def test_a_start_refuses_a_graph_that_is_too_deep(actor: Connection, levels: int) -> None:
    graph = '{"node_type":"LOOP","left_node":' * levels + json.dumps(SQL) + "}" * levels
    with pytest.raises(asyncpg.PostgresError, match="exceeds maximum nesting depth of 256"):
        await actor.fetchval("select df.start($1)", graph)


async def test_a_start_refuses_a_graph_of_too_many_nodes(actor: Connection) -> None:
    graph = {"node_type": "JOIN", "extra_nodes": [SQL] * 10_000} | BRANCHES
    with pytest.raises(asyncpg.PostgresError, match="exceeds maximum node count of 10000"):
        await actor.fetchval("select df.start($1)", json.dumps(graph))


async def test_a_config_beside_a_condition_is_no_obstacle(actor: Connection) -> None:
    graph = {"node_type": "LOOP", "left_node": SQL, "condition_node": SQL, "query": "{}"}
    instance = await actor.fetchval("select df.start($1)", json.dumps(graph))
    [config] = await actor.fetch(
        "select query from df.instance_nodes($1) where node_type = 'LOOP'", instance
    )
    assert list(json.loads(config["query"])) == ["condition_node"]
    await actor.execute("select df.cancel($1)", instance)


@pytest.mark.parametrize("call", ["df.setvar('v', '1')", "df.unsetvar('v')", "df.clearvars()"])
async def test_a_function_that_builds_no_node_is_no_step(actor: Connection, call: str) -> None:
    name = call.partition("(")[0]
    for statement in (f"{call} ~> 'select 1'", f"df.start({call})", f"df.join('a', {call})"):
        with pytest.raises(asyncpg.PostgresError, match=f"{name} cannot be used as a workflow ste"):
            await actor.fetchval(f"select {statement}")
    await actor.execute(f"select {call}")
    node = json.loads(await actor.fetchval("select 'OK' ~> 'select 1'"))["left_node"]
    assert node == {"node_type": "SQL", "query": "OK"}


async def test_the_answer_of_a_wait_is_no_step(actor: Connection) -> None:
    instance = await actor.fetchval("select df.start('select 1')")
    with pytest.raises(
        asyncpg.PostgresError, match=r"df\.await_instance cannot be used as a workflo"
    ):
        await actor.fetchval("select df.seq(df.await_instance($1), 'select 1')", instance)
