"""Results of statements that PostgreSQL has and Python has not: the node fails, at once."""

from __future__ import annotations

import pytest

from pgflows.database.connections import Connection
from tests.conformance.stage import finish, play, start

LISTS = "repeat('[', 3000) || repeat(']', 3000)"
UNREADABLE = {
    "digits": "repeat('9', 5000)::jsonb",
    "exponent": "'1e5000'::jsonb",
    "digits in json": "('[' || repeat('9', 5000) || ']')::json",
    "nested": f"({LISTS})::jsonb",
    "nested json": f"({LISTS})::json",
    "date without end": "'infinity'::date",
    "date before all": "'-infinity'::date",
    "time without end": "'infinity'::timestamptz",
    "time before all": "'-infinity'::timestamp",
    "date before Christ": "'0044-03-15 BC'::date",
    "time before Christ": "'4713-01-01 BC'::timestamptz",
    "date far away": "'5874897-12-31'::date",
    "time far away": "'294276-12-31'::timestamp",
}
ONE_TRIP = {
    "digits": "'{}'::jsonb",
    "nested": "'{}'::jsonb",
    "date without end": "'2024-02-29'::date",
    "date before Christ": "'2024-02-29'::date",
}
CANNOT = "the result holds a value that cannot be read"
pytestmark = pytest.mark.ours("the extension fails such a node in words of its own")


@pytest.mark.parametrize("what", UNREADABLE)
async def test_node_whose_result_cannot_be_read_fails_and_says_so(
    actor: Connection, what: str
) -> None:
    played = await play(actor, f"df.sql($q$select {UNREADABLE[what]} as v$q$)")
    assert CANNOT in played.error


@pytest.mark.parametrize("what", ONE_TRIP)
async def test_node_whose_later_result_cannot_be_read_fails_as_the_first_would(
    actor: Connection, what: str
) -> None:
    """From the second time on the server makes JSON of the rows, in one trip."""
    odd = f"select case when $i < 3 then {ONE_TRIP[what]} else {UNREADABLE[what]} end as v"
    turn = f"df.seq(df.sql($q${odd}$q$), df.as($q$select $i + 1 as n$q$, 'i'))"
    loop = f"df.loop({turn}, $q$select $i < 6$q$)"
    played = await play(actor, f"df.seq(df.as('select 0 as n', 'i'), df.seq({loop}, 'select 1'))")
    assert CANNOT in played.error
    [failed] = [n for n in played.nodes if n["query"] == odd]
    assert failed["status"] == "failed"


async def test_values_at_the_edge_of_what_can_be_read_are_read(actor: Connection) -> None:
    flow = (
        "df.sql($q$select '9999-12-31'::date a, '0001-01-01'::date b, "
        "'9999-12-31 23:59:59.999999+00'::timestamptz c, repeat('9', 4300)::jsonb d, "
        "(repeat('[', 400) || repeat(']', 400))::jsonb e$q$)"
    )
    [row] = (await play(actor, flow)).rows
    assert (row["a"], row["b"]) == ("9999-12-31", "0001-01-01")
    assert row["c"].startswith("9999-12-31T23:59:59.999999")


@pytest.mark.parametrize("data", ["repeat('9', 5000)", LISTS])
async def test_signal_that_cannot_be_read_stops_its_own_run_only(
    actor: Connection, data: str
) -> None:
    wait = "df.as(df.wait_for_signal('go', 60), 's')"
    instance = await start(actor, f"df.seq({wait}, $q$select $s.data$q$)")
    neighbour = await start(actor, wait)
    await actor.execute(f"select df.signal($1, 'go', {data})", instance)
    await actor.execute("select df.signal($1, 'go', '1')", neighbour)
    assert (await finish(actor, neighbour)).status == "completed"
    assert "cannot be read" in (await finish(actor, instance)).error


async def test_condition_that_cannot_be_read_fails_its_node(actor: Connection) -> None:
    wait = "df.as(df.wait_for_signal('go', 60), 's')"
    instance = await start(actor, f"df.if({wait}, 'select 1', 'select 2')")
    await actor.execute(f"select df.signal($1, 'go', {LISTS})", instance)
    assert "cannot be read" in (await finish(actor, instance)).error
