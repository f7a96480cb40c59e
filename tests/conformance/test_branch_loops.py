"""A loop that is a whole branch of a JOIN or RACE counts its iterations in the branch's scope."""

from __future__ import annotations

import json

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import Played, finish, play, start, until_listening, until_node
from tests.conftest import until


def scope(played: Played, name: str) -> str:
    """The execution id of a node, with the ids of the instance and of loops named."""
    details: str = json.loads(played.node(name)["status_details"])["execution_id"]
    names = {n["node_id"]: n["query"] or n["node_type"] for n in played.nodes}
    names |= {n["node_id"]: "LOOP" for n in played.nodes if n["node_type"] == "LOOP"}
    parts = details.replace(played.id, "ID").split("::")
    return "::".join(names.get(part, part) for part in parts)


@pytest.mark.parametrize(
    "flow",
    [
        "df.join({loop}, 'select 2')",
        "df.join('select 2', {loop})",
        "df.join3('select 2', 'select 3', {loop})",
        "df.race({loop}, df.sleep(600))",
        "df.race(df.sleep(600), {loop})",
        "df.seq('select 2', df.join({loop}, 'select 3'))",
    ],
)
async def test_a_loop_as_a_branch_shares_the_scope_of_the_branch(
    actor: Connection, flow: str
) -> None:
    played = await play(actor, flow.format(loop="df.loop('select 1', 'select false')"))
    assert played.status == "completed"
    for name in ("LOOP", "select 1", "select false"):
        assert scope(played, name) == "ID::1::LOOP::1"


async def test_a_loop_as_a_branch_counts_its_iterations_there(actor: Connection) -> None:
    counter = "branch_" + await actor.fetchval("select left(gen_random_uuid()::text, 8)")
    await actor.execute(f"create sequence corpus.{counter}")
    loop = f"df.loop('select 1', 'select nextval(''corpus.{counter}'') < 3')"
    played = await play(actor, f"df.join({loop}, 'select 2')")
    assert scope(played, "LOOP") == scope(played, "select 1") == "ID::1::LOOP::3"
    await actor.execute(f"drop sequence corpus.{counter}")


async def test_a_loop_below_a_branch_has_a_scope_of_its_own(actor: Connection) -> None:
    inner = "df.seq('select 0', df.loop('select 1', 'select false'))"
    played = await play(actor, f"df.join({inner}, 'select 2')")
    [then] = [n["node_id"] for n in played.nodes if n["node_type"] == "THEN"]
    assert scope(played, "select 1").replace(then, "THEN") == "ID::1::THEN::1::LOOP::1"


@pytest.mark.parametrize("branch", [1, 2])
async def test_a_loop_that_fails_as_a_branch_shows_the_error_of_the_branch(
    actor: Connection, branch: int
) -> None:
    arms = ["df.loop('select 1/0')", "'select 2'"][:: 1 if branch == 1 else -1]
    played = await play(actor, f"df.join({arms[0]}, {arms[1]})")
    assert played.error.startswith(f"JOIN branch {branch} failed: SQL execution failed: ")
    assert json.loads(played.node("LOOP")["result"]) == played.error
    assert scope(played, "LOOP") == "ID::1::LOOP::1"


async def test_a_losing_loop_shows_where_it_was_cancelled(actor: Connection) -> None:
    flow = "df.race(df.loop(df.wait_for_signal('never')), df.wait_for_signal('go'))"
    instance = await start(actor, flow)
    await until_node(actor, instance, "LOOP")
    waiting = (
        "select count(*) = 2 from df.instance_nodes($1) "
        "where inferred_status = 'running' and node_type = 'SIGNAL'"
    )
    await until(lambda: actor.fetchval(waiting, instance), what="two waits")
    await until_listening(actor, instance, waits=2)
    await actor.fetchval("select df.signal($1, 'go')", instance)
    played = await finish(actor, instance)
    assert played.node("LOOP")["status"] == "failed"
    assert "cancelled after losing RACE" in played.node("LOOP")["result"]
    assert scope(played, "LOOP") == "ID::1::LOOP::1"


async def test_captures_go_on_in_a_branch_loop_and_come_out_of_it(actor: Connection) -> None:
    loop = "df.loop(df.as('select $k.n + 1 as n', 'k'), 'select $k.n < 3')"
    before, after = "df.as('select 0 as n', 'k')", "'select $k.n as k, $l.n as l'"
    flow = f"{before} ~> df.join('select 2', df.as({loop}, 'l')) ~> {after}"
    assert (await play(actor, flow)).rows == [{"k": 3, "l": 3}]


@pytest.mark.parametrize(
    "form", ["{loop}", "df.join({loop}, 'select 2')", "df.race({loop}, df.sleep(600))"]
)
async def test_a_loop_that_ended_is_not_run_again_when_the_run_was_out_of_memory(
    actor: Connection, form: str
) -> None:
    made = "ended_" + await actor.fetchval("select left(gen_random_uuid()::text, 8)")
    await actor.execute(f"create table corpus.{made} (n integer)")
    loop = (
        f"df.loop(df.as('insert into corpus.{made} select count(*) from corpus.{made} returning n',"  # noqa: S608
        f" 'last'), 'select count(*) < 3 from corpus.{made}')"
    )
    flow = f"df.seq(df.seq({form.format(loop=loop)}, df.wait_for_signal('go')), 'select $last')"
    instance = await start(actor, flow)
    await until_node(actor, instance, "SIGNAL")
    await actor.fetchval("select df.signal($1, 'go')", instance)
    assert (await finish(actor, instance)).cell == 2
    assert await actor.fetchval(f"select array_agg(n) from corpus.{made}") == [0, 1, 2]  # noqa: S608
    await actor.execute(f"drop table corpus.{made}")
