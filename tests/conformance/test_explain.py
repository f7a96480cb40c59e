"""What df.explain draws of a text: the shape of an expression, a statement, or what is wrong."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pgflows.database.connections import Connection


async def explain(conn: Connection, text: str) -> list[str]:
    drawn: str = await conn.fetchval("select df.explain($1)", text)
    return [line.rstrip() for line in drawn.split("\n")]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            " 'SELECT ''winner''' | df.sleep(30) ",
            [
                "RACE",
                "    ║ branch 1:",
                "      ├─SQL: SELECT 'winner'",
                "    ║ branch 2:",
                "      └─SLEEP 30s",
            ],
        ),
        (
            "'SELECT 1' |=> 'a' ~> 'SELECT $a'",
            ["SQL: SELECT 1 |=> 'a'", "→ SQL: SELECT $a"],
        ),
        (
            "'SELECT true' ?> 'SELECT 1' !> df.sleep(2)",
            [
                "IF",
                "    ? condition:",
                "      └─SQL: SELECT true",
                "    ✓ then:",
                "      └─SQL: SELECT 1",
                "    ✗ else:",
                "      └─SLEEP 2s",
            ],
        ),
        (
            "@> ('SELECT 1' ~> df.break('x'))",
            ["LOOP (infinite)", "    ↻ body:", "      └─SQL: SELECT 1", "      → BREAK 'x'"],
        ),
        ("df.wait_for_schedule('0 * * * *')", ["WAIT '0 * * * *'"]),
        ("df.wait_for_signal('go', 5) |=> 's'", ["SIGNAL 'go' (5s) |=> 's'"]),
        ("SELECT 1", ["SQL: SELECT 1"]),
        ("insert into t values (1)", ["SQL: insert into t values (1)"]),
        ("null::text ~> 'SELECT 1'", ["Expression returned NULL"]),
    ],
)
async def test_explain_draws_what_a_text_builds(
    actor: Connection, text: str, lines: list[str]
) -> None:
    assert await explain(actor, text) == lines


@pytest.mark.ours("the extension cannot tell that these are expressions, or statements")
@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("'SELECT 1' & 'SELECT 2'", "JOIN (2)"),
        ("('a' | 'b')", "RACE"),
        ("-- twice\n'a' & 'b';", "JOIN (2)"),
        ("values (1)", "SQL: values (1)"),
        ("/* first */ (select 1) union select 2", "SQL: /* first */ (select 1) union select 2"),
        ("select df.signal('deadbeef', 'go')", "SQL: select df.signal('deadbeef', 'go')"),
    ],
)
async def test_explain_tells_expressions_from_statements(
    actor: Connection, text: str, first: str
) -> None:
    assert (await explain(actor, text))[0] == first


async def test_explain_of_anything_else_says_what_it_takes(actor: Connection) -> None:
    assert (await explain(actor, "hello"))[0].startswith("Cannot explain input: ")


async def test_explain_finds_the_functions_of_the_callers_path(actor: Connection) -> None:
    name = "explained_" + await actor.fetchval("select left(gen_random_uuid()::text, 8)")
    await actor.execute(
        f"create function corpus.{name}() returns text language sql as $$ select df.sleep(7) $$"
    )
    await actor.execute("set search_path = corpus")
    assert await explain(actor, f"{name}() ~> 'SELECT 1'") == ["SLEEP 7s", "→ SQL: SELECT 1"]
    assert await actor.fetchval("show search_path") == "corpus"
    await actor.execute(f"drop function corpus.{name}()")


@pytest.mark.parametrize("text", ["'a' ~> ", "df.nothing()", "'a' ~> no_such_column"])
async def test_explain_raises_where_an_expression_cannot_be_evaluated(
    actor: Connection, text: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await explain(actor, text)
    assert (refused.value.sqlstate or "").startswith("42")


@pytest.mark.ours("the extension runs what is appended to an expression")
async def test_explain_runs_no_statement_that_is_hidden_in_an_expression(actor: Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match="not allowed in a non-volatile function"):
        await explain(actor, "df.sleep(1)); create table corpus.hidden (n integer); select (null")
    assert await actor.fetchval("select to_regclass('corpus.hidden')") is None


BAD = "Invalid durable function graph: "
DEEP = '{"node_type":"LOOP","left_node":' * 300 + '{"node_type":"SQL","query":"x"}' + "}" * 300


@pytest.mark.parametrize(
    ("graph", "begins"),
    [
        ({"node_type": "NOT_A_NODE"}, f"{BAD}root: Unknown node_type 'NOT_A_NODE'"),
        (
            {"node_type": "LOOP", "left_node": {"node_type": "NOPE"}},
            f"{BAD}root.left: Unknown node_type 'NOPE'. Valid types: SQL, THEN, IF, JOIN, LOOP",
        ),
        (DEEP, f"{BAD}root.left.left.left.left"),
    ],
    ids=["root", "child", "deep"],
)
async def test_explain_says_what_is_wrong_with_a_graph(
    actor: Connection, graph: object, begins: str
) -> None:
    drawn = await explain(actor, graph if isinstance(graph, str) else json.dumps(graph))
    assert len(drawn) == 1
    assert drawn[0].startswith(begins)
    assert graph is not DEEP or "Graph exceeds maximum nesting depth of 256" in drawn[0]


async def test_explain_knows_an_id_however_it_is_written(actor: Connection) -> None:
    assert await explain(actor, "  deadbeef\n") == ["Instance 'deadbeef' not found"]
    assert await explain(actor, "DEADBEEF") == ["Instance 'DEADBEEF' not found"]
