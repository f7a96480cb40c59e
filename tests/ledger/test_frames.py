"""take, put, finish: what a compiled graph calls, once or again."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from pgflows.database import connections as db
from pgflows.ledger.ledger import Ledger, Record
from pgflows.ledger.request import StepRequest
from tests.ledger.conftest import PUT, Books, Run

TAKE = "select pgflows.take($1, 'main', $2)"


async def settle(
    ledger: Ledger, request: StepRequest, output: Any = None, error: Any = None
) -> None:
    """The step runs, somewhere, and ends so."""
    found = await ledger.claim(request)
    assert found.instance_id is not None
    await ledger.record(
        Record(
            found.instance_id,
            request.step_key,
            found.attempt,
            0.0,
            "completed" if error is None else "failed",
            output=json.dumps(output) if error is None else None,
            error=json.dumps(error) if error is not None else None,
        )
    )


async def test_a_run_begins_with_its_input(books: Books) -> None:
    run = await books.start({"a": 1})
    assert await books.run.fetchval(TAKE, run.df_id, 0) == {"@in": {"a": 1}}


async def test_a_call_is_signed_over_all_that_names_it(books: Books) -> None:
    run = await books.start()
    (push,) = await books.pushes(run, "work#1", given={"a": "ä"})
    version, key_id, digest = push.signature.split(".")
    secret = await books.owner.fetchval("select secret from pgflows.live_keys()")
    text = f"v1.{key_id}.{run.df_id}.work.work#1.1.{hashlib.sha256(push.body).hexdigest()}"
    assert version == "v1"
    assert hmac.new(secret, text.encode(), hashlib.sha256).hexdigest() == digest


async def test_a_repeated_put_answers_as_the_first_did(books: Books) -> None:
    run = await books.start()
    steps = [{"key": "work#1", "step": "work", "var": "x", "input": {"n": 1}}]
    first = await books.run.fetchrow(PUT, run.df_id, "main", 0, {"x": 1}, steps)
    other = [steps[0] | {"input": {"n": 2}}]
    again = await books.run.fetchrow(PUT, run.df_id, "main", 0, {"x": 2}, other)
    assert first == again


async def test_a_put_made_twice_at_the_same_time_answers_alike(books: Books) -> None:
    run = await books.start()
    steps = [{"key": "work#1", "step": "work", "var": "x", "input": {}}]
    first, second = [
        await db.connect(books.database.run_dsn, replace(db.COMMAND, name=name))
        for name in ("one", "two")
    ]
    transaction = first.transaction()
    await transaction.start()
    one = await first.fetchrow(PUT, run.df_id, "main", 0, {}, steps)
    waiting = asyncio.create_task(second.fetchrow(PUT, run.df_id, "main", 0, {}, steps))
    await books.until_blocked("two")
    await transaction.commit()
    assert await waiting == one
    await first.close()
    await second.close()


async def test_a_false_condition_asks_for_nothing(books: Books) -> None:
    run = await books.start()
    row = await books.run.fetchrow(
        "select * from pgflows.put($1, 'main', 0, '{}', false, $2)",
        run.df_id, [{"key": "work#1", "step": "work", "input": {}}],
    )  # fmt: skip
    assert row is not None
    assert tuple(row) == (False, 1, [], [], [])
    assert await books.owner.fetchval("select count(*) from pgflows.step_runs") == 0


async def test_outcomes_are_taken_in_by_name(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    one, two = await books.ask(run, "work#1", "work#2")
    await settle(ledger, one, {"r": 1})
    await settle(ledger, two, "text")
    assert await books.run.fetchval(TAKE, run.df_id, 1) == {
        "@in": {}, "v0": {"r": 1}, "v1": "text",
    }  # fmt: skip


async def test_numbers_keep_their_digits(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    (request,) = await books.ask(run)
    found = await ledger.claim(request)
    assert found.instance_id is not None
    output = '{"a": 1.50, "b": 100000000000000000000000, "c": 0.1}'
    await ledger.record(
        Record(found.instance_id, request.step_key, 1, 0.0, "completed", output=output)
    )
    text = await books.run.fetchval("select (pgflows.take($1, 'main', 1) -> 'v0')::text", run.df_id)
    assert text == output


async def test_a_step_without_an_outcome_is_an_error_of_its_own(books: Books) -> None:
    run = await books.start()
    await books.ask(run)
    with pytest.raises(asyncpg.PostgresError, match="step work#1 has no outcome") as e:
        await books.run.fetchval(TAKE, run.df_id, 1)
    assert e.value.sqlstate == "PF002"


async def test_a_failed_step_ends_the_node(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    (request,) = await books.ask(run)
    await settle(ledger, request, error={"type": "Broke", "message": "no money"})
    with pytest.raises(asyncpg.PostgresError, match="step work#1 failed: Broke: no money") as e:
        await books.run.fetchval(TAKE, run.df_id, 1)
    assert e.value.sqlstate == "PF001"
    assert json.loads(e.value.detail or "") == {
        "type": "Broke", "message": "no money", "step_key": "work#1",
    }  # fmt: skip


async def test_a_failure_of_a_step_called_in_a_try_sets_the_flag(
    books: Books, ledger: Ledger
) -> None:
    run = await books.start()
    one, two = await books.ask(run, "work#1", "work#2", in_try=True)
    await settle(ledger, one, 1)
    error = {"type": "Broke", "message": "no money"}
    await settle(ledger, two, error=error)
    assert await books.run.fetchval(TAKE, run.df_id, 1) == {
        "@in": {}, "@k": "raise", "@x": error | {"step_key": "work#2"},
    }  # fmt: skip


async def test_the_last_two_versions_are_kept(books: Books) -> None:
    run = await books.start()
    for seq in range(5):
        await books.run.execute(PUT, run.df_id, "main", seq, {}, [])
    rows = await books.owner.fetch("select seq from pgflows.frames order by seq")
    assert [r["seq"] for r in rows] == [4, 5]


async def test_finish_ends_the_instance_once(books: Books) -> None:
    run = await books.start()
    finish = "select pgflows.finish($1, 'main', 0, $2)"
    assert await books.run.fetchval(finish, run.df_id, {"r": 1}) == {"r": 1}
    await books.run.fetchval(finish, run.df_id, {"r": 2})
    row = await books.owner.fetchrow("select status, output from pgflows.instances")
    assert row is not None
    assert tuple(row) == ("completed", {"r": 1})


async def test_runs_of_another_submitter_are_refused(books: Books) -> None:
    run = await books.start()
    for statement, *args in (
        ("select pgflows.take($1, 'main', 0)", run.df_id),
        ("select * from pgflows.put($1, 'main', 0, '{}', true, '[]')", run.df_id),
        ("select pgflows.finish($1, 'main', 0, '{}')", run.df_id),
        ("select pgflows.take($1, 'main', 0)", "00000000"),
    ):
        with pytest.raises(asyncpg.PostgresError) as e:
            await books.owner.execute(statement, *args)
        assert e.value.sqlstate == "PF003"


async def failed(books: Books, run: Run) -> None:
    """The orchestrator fails the run."""
    await books.owner.execute("update df.instances set status = 'failed' where id = $1", run.df_id)


async def test_a_revived_run_keeps_what_was_recorded(books: Books, ledger: Ledger) -> None:
    run = await books.start({"a": 1})
    done, open_ = await books.ask(run, "work#1", "work#2")
    await settle(ledger, done, {"r": 1})
    await failed(books, run)
    assert await books.owner.fetchval("select status from pgflows.instances") == "failed"
    await books.owner.execute(
        "update pgflows.step_runs set ended_at = ended_at - interval '1 hour', "
        "requested_at = requested_at - interval '1 hour'"
    )
    df_id = await books.owner.fetchval("select pgflows.revive($1)", run.instance_id)
    revived = Run(run.instance_id, df_id)
    assert df_id != run.df_id
    assert await books.run.fetchval(TAKE, df_id, 0) == {"@in": {"a": 1}}
    again, next_ = await books.ask(revived, "work#1", "work#2")
    verdicts = [(await ledger.claim(request)).verdict for request in (again, next_, open_)]
    assert verdicts == ["completed", "run", "running"]


async def test_a_pending_run_may_be_revived_and_the_old_one_is_withdrawn(books: Books) -> None:
    run = await books.start()
    df_id = await books.owner.fetchval("select pgflows.revive($1)", run.instance_id)
    rows = await books.owner.fetch("select id, status from df.instances")
    assert {tuple(r) for r in rows} == {(run.df_id, "cancelled"), (df_id, "pending")}
    assert await books.owner.fetchval("select status from pgflows.instances") == "pending"


async def test_what_is_neither_failed_nor_pending_is_not_revived(books: Books) -> None:
    run = await books.start()
    await books.owner.execute("select df.cancel($1)", run.df_id)
    with pytest.raises(asyncpg.PostgresError, match="is cancelled"):
        await books.owner.fetchval("select pgflows.revive($1)", run.instance_id)
    missing = "00000000-0000-7000-8000-000000000000"
    with pytest.raises(asyncpg.PostgresError) as e:
        await books.owner.fetchval("select pgflows.revive($1)", missing)
    assert e.value.sqlstate == "PF014"
