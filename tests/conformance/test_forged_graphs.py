"""Graphs that were written by hand, to get what the constructors would not give."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from pgflows.database.connections import Connection
from pgflows.engine.node.graph import build
from tests.conformance.stage import literal, play, play_all
from tests.df.conftest import OTHER

SQL = {"node_type": "SQL", "query": "select 1"}
SLEEP = {"node_type": "SLEEP", "query": "600"}
CALL = {"node_type": "HTTP", "query": json.dumps({"url": "http://peer/", "method": "GET"})}
PARTS = {"url": "http://peer/", "method": "POST", "parts": [{"name": "a", "data_b64": ""}]}


def node(kind: str, left: Any = None, right: Any = None, **more: Any) -> dict[str, Any]:
    found = {"node_type": kind, "left_node": left, "right_node": right} | more
    return {k: v for k, v in found.items() if v is not None}


HIDDEN = {
    "bare": CALL,
    "multipart": {"node_type": "HTTP_MULTIPART", "query": json.dumps(PARTS)},
    "then": node("THEN", SQL, CALL),
    "condition of an if": node("IF", SQL, SQL, condition_node=CALL),
    "branch of an if": node("IF", node("THEN", CALL, SQL), SQL, condition_node=SQL),
    "body of a loop": node("LOOP", CALL),
    "condition of a loop": node("LOOP", SQL, condition_node=CALL),
    "third arm of a join": node("JOIN", SQL, SQL, extra_nodes=[CALL]),
    "race": node("RACE", SLEEP, node("JOIN", SQL, SQL, extra_nodes=[node("LOOP", CALL)])),
}


async def test_a_call_by_a_role_without_the_right_fails_its_node_wherever_it_is(
    stranger: Connection,
) -> None:
    for played in await play_all(stranger, [literal(json.dumps(g)) for g in HIDDEN.values()]):
        assert f"Blocked: role '{OTHER}' does not have EXECUTE privilege on df.http" in played.error
        [failed] = [n for n in played.nodes if n["node_type"].startswith("HTTP")]
        assert failed["status"] == "failed"


@pytest.mark.ours("the extension refuses a key that is given twice")
async def test_a_key_that_is_given_twice_hides_nothing(stranger: Connection) -> None:
    twice = '{"node_type":"SQL","query":"select 1","node_type":"HTTP","query":%s}'
    for text in (twice, twice.replace('"SQL"', ' "SQL"')):
        played = await play(stranger, literal(text % json.dumps(CALL["query"])))
        assert "does not have EXECUTE privilege on df.http()" in played.error


def spec(kind: str, **query: Any) -> dict[str, Any]:
    return {"node_type": kind, "query": json.dumps(query)}


UNREADABLE = [
    node("JOIN", SQL, SQL, query='{"extra_nodes":["00000000"]}'),
    node("LOOP", SQL, query='{"condition_node":"00000000"}'),
    node("THEN", SQL, SQL, query="select 2"),
    node("IF", SQL, SQL, query='{"condition_node":"00000000"}'),
    node("IF", SQL, SQL, query="select 1"),
    node(
        "IF",
        SQL,
        SQL,
        query='{"condition_type":"result_has_rows","result_name":"a","condition_node":"00000000"}',
    ),
    spec("HTTP", method="GET"),
    spec("HTTP", url=7, method="GET"),
    spec("HTTP", url="http://peer/", method="GET / HTTP/1.1\r\nHost: inside\r\n\r\nGET"),
    spec("HTTP", url="http://peer/", method="CONNECT"),
    spec("HTTP", url="http://peer/", method="GET", headers=["Host"]),
    spec("HTTP", url="http://peer/", method="GET", timeout_seconds="NaN"),
    spec("HTTP", url="http://peer/", method="GET", timeout_seconds=-1),
    spec("HTTP", url="http://peer/", method="POST", body={"a": 1}),
    spec("HTTP_MULTIPART", url="http://peer/", method="POST"),
    spec("SIGNAL", timeout_seconds=1),
    spec("SIGNAL", signal_name="go", timeout_seconds="soon"),
    spec("WAIT_SCHEDULE", cron_expr="every now and then"),
    {"node_type": "BREAK", "query": "no json"},
    {"node_type": "HTTP", "query": "[]"},
    {"node_type": "SLEEP", "query": "-1"},
]


@pytest.mark.parametrize("forged", UNREADABLE, ids=lambda forged: json.dumps(forged)[:80])
async def test_what_no_engine_could_run_is_refused_at_the_start(
    user: Connection, forged: dict[str, Any]
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await user.fetchval("select df.start($1)", json.dumps(forged))
    assert refused.value.sqlstate == "PF101"
    assert await user.fetchval("select count(*) from df.instances") == 0


@pytest.mark.parametrize(
    ("children", "problem"),
    [
        ({"a": "a"}, "below node a"),
        ({"a": "b", "b": "a"}, "below node b"),
        ({"a": "bb"}, "parents"),
    ],
)
def test_an_engine_takes_no_rows_that_are_no_tree(children: dict[str, str], problem: str) -> None:
    rows = [
        {
            "id": i,
            "node_type": "THEN",
            "query": None,
            "result_name": None,
            "left_node": (children.get(i) or " ")[0].strip() or None,
            "right_node": (children.get(i) or " ")[1:] or None,
        }
        for i in "ab"
    ]
    with pytest.raises(ValueError, match=problem):
        build("a", rows)
