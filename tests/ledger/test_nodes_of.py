"""The nodes of a run, as its history shows them: in the order of the graph."""

from __future__ import annotations

import json

import pytest

from tests.ledger.conftest import Books


@pytest.mark.parametrize(
    ("flow", "texts"),
    [
        ("df.sql('1')", ["1"]),
        ("df.seq(df.seq('1', '2'), df.seq('3', '4'))", ["1", "2", "3", "4"]),
        ("df.if('1', '2', '3')", ["1", "2", "3"]),
        ("df.loop(df.seq('1', '2'), '3')", ["1", "2", "3"]),
        ("df.join3('1', df.seq('2', '3'), '4')", ["1", "2", "3", "4"]),
        ("df.seq(df.race('1', '2'), df.if('3', df.loop('4', '5'), df.sql('6')))", list("123456")),
    ],
)
async def test_nodes_of_a_run_are_in_the_order_of_its_graph(
    books: Books, flow: str, texts: list[str]
) -> None:
    df_id = await books.run.fetchval(f"select df.start({flow})")
    nodes = await books.owner.fetchval("select pgflows._nodes_of($1)", df_id)
    assert [node["query"] for node in nodes if node["node_type"] == "SQL"] == texts
    seen: set[str] = set()
    for node in nodes:
        spec = json.loads(node["query"] or "{}") if node["node_type"] in ("IF", "JOIN") else {}
        children = [node["left_node"], node["right_node"], spec.get("condition_node")]
        assert not seen & {*children, *spec.get("extra_nodes", ())}
        seen.add(node["node_id"])


async def test_a_run_that_the_orchestrator_does_not_know_has_no_nodes(books: Books) -> None:
    assert await books.owner.fetchval("select pgflows._nodes_of('00000000')") == []
