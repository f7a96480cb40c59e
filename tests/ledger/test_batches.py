"""Compiled nodes of many runs at once: as one by one, and what is out of the ordinary left out."""

from __future__ import annotations

import json
import uuid
from typing import Any

import asyncpg
import pytest

from pgflows.compiled import NodeText
from pgflows.ledger.ledger import Ledger
from tests.ledger.conftest import PUT, Books, Run
from tests.ledger.test_frames import TAKE, settle

TAKE_EACH = (
    "select n, v from pgflows.take_each($1::text[], "
    "array_fill('main'::text, array[cardinality($1)]), $2) order by n"
)
PUT_EACH = (
    "select * from pgflows.put_each($1::text[], "
    "array_fill('main'::text, array[cardinality($1)]), $2, $3, $4, $5, $6::text[]::jsonb[]) "
    "order by n"
)
FINISH_EACH = "select * from pgflows.finish_each($1, $2, $3) order by n"
STEP = {"key": "work#1", "step": "work", "var": "x", "input": {"n": 1.50, "s": 'ä"'}, "try": False}
FRAMES = "select df_id, strand, seq, env, ret from pgflows.frames order by 1, 2, 3"
LEDGER = (
    "select step_key, step, seq, status, input, retry, attempts from pgflows.step_runs "
    "where instance_id = $1"
)
LAST = NodeText("main", "$e.seq", output="v").prepared()


async def put_each(books: Books, *runs: Run, **more: Any) -> list[dict[str, Any]]:
    """One step asked for by each of these runs, as their first node."""
    numbers = list(range(1, len(runs) + 1))
    rows = await books.run.fetch(
        PUT_EACH, [r.df_id for r in runs], [0] * len(runs), numbers,
        [{"@in": {}}] * len(runs), [True] * len(runs), [json.dumps([STEP | more])] * len(runs),
    )  # fmt: skip
    assert [r["n"] for r in rows] == numbers
    return [{k: v for k, v in r.items() if k != "n"} for r in rows]


async def test_many_runs_ask_as_one_does(books: Books) -> None:
    alone, *others = [await books.start() for _ in range(4)]
    one = await books.run.fetchrow(PUT, alone.df_id, "main", 0, {"@in": {}}, [STEP])
    assert one is not None
    (expected,) = await books.owner.fetch(LEDGER, alone.instance_id)
    for run, row in zip(others, await put_each(books, *others), strict=True):
        assert row | {"signatures": one["signatures"]} == dict(one)
        again = await books.run.fetchrow(PUT, run.df_id, "main", 0, {}, [STEP])
        assert again is not None
        assert dict(again) == row
        assert await books.owner.fetch(LEDGER, run.instance_id) == [expected]
    first, *frames = [tuple(f)[1:] for f in await books.owner.fetch(FRAMES)]
    assert frames == [first] * 3


async def test_many_runs_take_in_what_one_would(books: Books, ledger: Ledger) -> None:
    runs = [await books.start({"i": i}) for i in range(3)]
    ids = [r.df_id for r in runs]
    rows = await books.run.fetch(TAKE_EACH, ids, [0] * 3)
    assert [r["v"] for r in rows] == [{"@in": {"i": i}} for i in range(3)]
    for i, run in enumerate(runs):
        (request,) = await books.ask(run)
        await settle(ledger, request, {"r": i} if i else None)
    rows = await books.run.fetch(TAKE_EACH, ids, [1] * 3)
    assert [r["n"] for r in rows] == [1, 2, 3]
    assert [r["v"] for r in rows] == [await books.run.fetchval(TAKE, i, 1) for i in ids]


async def test_a_result_that_has_no_name_is_not_kept(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    await put_each(books, run, var=None)
    await books.owner.execute("update pgflows.step_runs set status = 'completed', output = '1'")
    (row,) = await books.run.fetch(TAKE_EACH, [run.df_id], [1])
    assert row["v"] == {"@in": {}} == await books.run.fetchval(TAKE, run.df_id, 1)


async def test_what_take_would_refuse_is_left_out(books: Books, ledger: Ledger) -> None:
    fine, failed, open_, two, lost = [await books.start() for _ in range(5)]
    (request,) = await books.ask(fine)
    await settle(ledger, request, "fine")
    (request,) = await books.ask(failed)
    await settle(ledger, request, error={"type": "Broke", "message": "no money"})
    await books.ask(open_)
    for request in await books.ask(two, "work#1", "work#2"):
        await settle(ledger, request, 2)
    ids = [r.df_id for r in (fine, failed, open_, two, lost)]
    rows = await books.run.fetch(TAKE_EACH, [*ids, "00000000"], [1] * 6)
    assert [(r["n"], r["v"]["v0"]) for r in rows] == [(1, "fine"), (4, 2)]


async def test_a_batch_answers_a_node_that_ran_before_as_it_did_then(books: Books) -> None:
    before, fresh = await books.start(), await books.start()
    first = await put_each(books, before)
    assert (await put_each(books, fresh, before))[1:] == first
    assert (await put_each(books, before, input={"n": 2})) == first


async def test_a_batch_opens_a_step_that_a_run_asked_for_before_it_was_revived(
    books: Books,
) -> None:
    run = await books.start()
    (first,) = await put_each(books, run)
    await books.owner.execute("delete from pgflows.frames")
    await books.owner.execute(
        "update pgflows.step_runs set requested_at = requested_at - interval '1 h'"
    )
    assert await put_each(books, run, input={"n": 2}) == [first]
    asked = "select requested_at > now() - interval '1 min' from pgflows.step_runs"
    assert await books.owner.fetchval(asked)


async def test_a_batch_holds_runs_whose_condition_is_false(books: Books) -> None:
    runs = [await books.start() for _ in range(3)]
    rows = await books.run.fetch(
        PUT_EACH, [r.df_id for r in runs], [0] * 3, [1, 2, 3], [{}] * 3, [True, False, None],
        [json.dumps([STEP])] * 3,
    )  # fmt: skip
    assert [(r["c"], len(r["keys"] or ())) for r in rows] == [(True, 1), (False, 0), (False, 0)]
    assert await books.owner.fetchval("select count(*) from pgflows.step_runs") == 1


async def test_runs_finish_together(books: Books) -> None:
    one, two, ended = [await books.start() for _ in range(3)]
    end = (
        "update pgflows.instances set status = 'cancelled', ended_at = now() where instance_id = $1"
    )
    await books.owner.execute(end, ended.instance_id)
    rows = await books.run.fetch(
        FINISH_EACH, [one.df_id, two.df_id, ended.df_id], [1, 2, 3], [1, {"a": None}, "x"]
    )
    assert [r["output"] for r in rows] == [1, {"a": None}, "x"]
    found = await books.owner.fetch(
        "select status, output from pgflows.instances order by instance_id"
    )
    assert [tuple(r) for r in found] == [
        ("completed", 1), ("completed", {"a": None}), ("cancelled", None),
    ]  # fmt: skip


@pytest.mark.parametrize("session", ["owner", "run"])
async def test_nobody_signs_or_reads_for_runs_of_others(books: Books, session: str) -> None:
    ours, theirs = await books.start(), await books.start()
    await books.owner.execute(
        "update pgflows.df_runs set submitted_by = current_user::regrole where df_id = $1",
        theirs.df_id,
    )
    n, ids = (
        (1, [ours.df_id, theirs.df_id]) if session == "run" else (2, [ours.df_id, theirs.df_id])
    )
    conn = getattr(books, session)
    taken = await conn.fetch(TAKE_EACH, ids, [0, 0])
    finished = await conn.fetch(FINISH_EACH, ids, [1, 2], [1, 1])
    asked = await conn.fetch(
        PUT_EACH, ids, [0, 0], [1, 2], [{}] * 2, [True] * 2, [json.dumps([STEP])] * 2
    )
    assert [[r["n"] for r in rows] for rows in (taken, asked, finished)] == [[n], [n], [n]]
    assert await books.owner.fetchval("select count(*) from pgflows.step_runs") == 1


# -- df._run, which tries them together and then one by one


async def claimed(books: Books, *runs: Run) -> uuid.UUID:
    token = uuid.uuid4()
    await books.owner.execute(
        "update df._work set owner = $1, token = $1 where instance_id = any ($2)",
        token, [r.df_id for r in runs],
    )  # fmt: skip
    return token


async def ride(books: Books, runs: list[Run], tokens: list[uuid.UUID]) -> list[asyncpg.Record]:
    """The last nodes of these runs in one batch, each after one step."""
    ids = [r.df_id for r in runs]
    entries = list(range(1, len(runs) + 1))
    each = LAST.each.partition(" as ")[2]
    for n, values in enumerate((ids, [1] * len(runs), entries), 1):
        each = each.replace(f"${n}", f"array{values}")
    texts = [LAST.filled(i, 1) for i in ids]
    nothing: list[Any] = []
    return await books.run.fetch(
        "select * from df._run($1,$2,$3,$4,$5,$6,$7,$8,$9,$9,$9,$9,$9,$9,$9,$9,$9,$10,$9,$10)",
        ids, tokens, texts, [each], [f"{i}::1" for i in ids], [False] * len(ids), nothing, nothing,
        nothing, nothing,
    )  # fmt: skip


async def test_a_batch_is_run_at_once(books: Books, ledger: Ledger) -> None:
    runs = [await books.start() for _ in range(3)]
    for i, run in enumerate(runs):
        (request,) = await books.ask(run)
        await settle(ledger, request, i)
    token = await claimed(books, *runs)
    rows = await ride(books, runs, [token] * 3)
    assert [json.loads(r["result"])["rows"][0]["output"]["v0"] for r in rows] == [0, 1, 2]
    assert [(r["held"], r["error"]) for r in rows] == [(True, None)] * 3


async def test_one_bad_run_does_not_spoil_its_batch(books: Books, ledger: Ledger) -> None:
    fine, failed, last = [await books.start() for _ in range(3)]
    (request,) = await books.ask(fine)
    await settle(ledger, request, "fine")
    (request,) = await books.ask(failed)
    await settle(ledger, request, error={"type": "Broke", "message": "no money"})
    (request,) = await books.ask(last)
    await settle(ledger, request, "fine too")
    token = await claimed(books, fine, failed, last)
    rows = await ride(books, [fine, failed, last], [token] * 3)
    assert [r["code"] for r in rows] == [None, "PF001", None]
    assert [r["result"] is None for r in rows] == [False, True, False]
    ended = "select status from pgflows.instances order by instance_id"
    assert [r[0] for r in await books.owner.fetch(ended)] == ["completed", "pending", "completed"]


async def test_a_lost_claim_leaves_its_run_as_it_is(books: Books, ledger: Ledger) -> None:
    held, lost = await books.start(), await books.start()
    for run in (held, lost):
        (request,) = await books.ask(run)
        await settle(ledger, request, 1)
    token = await claimed(books, held, lost)
    rows = await ride(books, [held, lost], [token, uuid.uuid4()])
    assert [(r["held"], r["result"] is None) for r in rows] == [(True, False), (False, True)]
    ended = "select status from pgflows.instances order by instance_id"
    assert [r[0] for r in await books.owner.fetch(ended)] == ["completed", "pending"]
