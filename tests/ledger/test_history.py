"""What history shows of a run's graph."""

from __future__ import annotations

from tests.ledger.conftest import Books

GRAPH = (
    "select df.seq(df.if('select 1', 'select 2', 'select 3'), df.seq("
    "df.join3('select 4', 'select 5', 'select 6'), df.loop('select 7', 'select 8')))"
)
DEFINE = "select pgflows.define('w', '1', $1, '{}', '{}', '{}', 'sum')"


async def test_history_lists_nodes_in_the_order_of_the_graph(books: Books) -> None:
    await books.owner.execute(DEFINE, await books.owner.fetchval(GRAPH))
    run = await books.start()
    history = await books.owner.fetchval("select pgflows.history($1)", run.df_id)
    assert [n["node_type"] for n in history["nodes"]] == [
        *("THEN", "IF", "SQL", "SQL", "SQL"),
        *("THEN", "JOIN", "SQL", "SQL", "SQL", "LOOP", "SQL", "SQL"),
    ]
    texts = [n["query"] for n in history["nodes"] if n["node_type"] == "SQL"]
    assert texts == [f"select {n}" for n in range(1, 9)]
    assert "more" not in history["nodes"][0]
