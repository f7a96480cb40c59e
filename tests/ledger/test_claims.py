"""Who may run a step: verdicts, processes that died, fences."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pgflows.ledger.ledger import Ledger, Record, StepCall, Verdict
from tests.ledger.conftest import Books, as_json
from tests.ledger.steps import BASE_URL


def ended(found: Verdict, call: StepCall, outcome: str = "completed", **more: Any) -> Record:
    """The record of a claimed attempt."""
    assert found.instance_id is not None
    return Record(found.instance_id, call.step_key, found.attempt, 0.01, outcome, **more)


async def test_a_requested_step_may_be_run(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    assert (found.verdict, found.attempt) == ("run", 1)
    assert (await books.row(call))["status"] == "running"


async def test_a_claimed_step_is_running(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    await ledger.claim(call)
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert (await ledger.claim(call)).verdict == "running"
        assert (await other.claim(call)).verdict == "running"


async def test_two_services_at_once_run_a_step_once(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    calls = await books.ask(run, *(f"work#{n}" for n in range(50)))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        found = await asyncio.gather(
            *(ledger.claim(c) for c in calls), *(other.claim(c) for c in reversed(calls))
        )
    verdicts = [f.verdict for f in found]
    assert (verdicts.count("run"), verdicts.count("running")) == (50, 50)


async def test_the_step_of_a_dead_process_is_taken_over_at_once(
    books: Books, ledger: Ledger
) -> None:
    call = await books.call()
    async with Ledger.open(books.database.dsn, BASE_URL) as doomed:
        await doomed.claim(call)
    await books.until_services(1)
    found = await ledger.claim(call)
    assert (found.verdict, found.attempt) == ("run", 2)
    assert await books.attempts(call) == [(1, "ProcessDied")]


async def test_a_lost_attempt_begins_where_the_one_before_ended(
    books: Books, ledger: Ledger
) -> None:
    call = await books.call()
    async with Ledger.open(books.database.dsn, BASE_URL) as doomed:
        found = await doomed.claim(call)
        await doomed.record(ended(found, call, "retry", error_type="Broke", retry_in=0.0))
    await books.until_services(1)
    await ledger.claim(call)
    rows = await books.owner.fetch(
        "select started_at, ended_at from pgflows.attempts order by attempt"
    )
    assert rows[1]["started_at"] >= rows[0]["ended_at"]


async def test_a_completed_step_answers_with_its_output(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    assert await ledger.record(ended(found, call, output='{"r": 1}'))
    again = await ledger.claim(call)
    assert (again.verdict, as_json(again.output)) == ("completed", {"r": 1})
    assert await books.attempts(call) == [(1, None)]


async def test_a_failed_step_answers_with_its_error(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    record = ended(found, call, "failed", error='{"type": "E", "message": "m"}', error_type="E")
    assert await ledger.record(record)
    again = await ledger.claim(call)
    assert (again.verdict, as_json(again.error)) == ("failed", {"type": "E", "message": "m"})
    assert await books.attempts(call) == [(1, "E")]


async def test_a_released_step_is_due_later(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    await ledger.record(ended(found, call, "release", error_type="E", retry_in=300))
    again = await ledger.claim(call)
    assert again.verdict == "later"
    assert 290 < again.retry_in <= 300
    await books.owner.execute("update pgflows.step_runs set retry_at = now()")
    assert ((await ledger.claim(call)).verdict) == "run"
    assert (await books.row(call))["attempts"] == 2


async def test_a_retry_holds_the_claim(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    assert await ledger.record(ended(found, call, "retry", error_type="E", retry_in=0.0))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert (await other.claim(call)).verdict == "running"
    assert await ledger.record(ended(replace(found, attempt=2), call, output="1"))
    assert await books.attempts(call) == [(1, "E"), (2, None)]


async def test_a_cancelled_instance_is_not_run(books: Books, ledger: Ledger) -> None:
    waiting, running = await books.ask(await books.start(), "work#1", "work#2")
    found = await ledger.claim(running)
    await books.owner.execute("select df.cancel($1)", waiting.df_id)
    assert (await ledger.claim(waiting)).verdict == "cancelled"
    assert (await ledger.claim(running)).verdict == "cancelled"
    assert not await ledger.record(ended(found, running, output="1"))


async def test_a_step_that_ended_long_ago_is_closed(books: Books, ledger: Ledger) -> None:
    call = await books.call()
    await ledger.record(ended(await ledger.claim(call), call, output="1"))
    await books.owner.execute(
        "update pgflows.step_runs set requested_at = requested_at - interval '301 s', "
        "ended_at = ended_at - interval '301 s'"
    )
    assert (await ledger.claim(call)).verdict == "closed"


@pytest.mark.parametrize(
    "changed",
    [{"df_id": "00000000"}, {"step": "other"}, {"step_key": "work#9"}, {"seq": "7"}],
)
async def test_what_was_not_asked_for_is_unknown(
    books: Books, ledger: Ledger, changed: dict[str, Any]
) -> None:
    call = await books.call()
    assert (await ledger.claim(replace(call, **changed))).verdict == "unknown"


async def test_only_the_attempt_that_holds_the_claim_is_recorded(
    books: Books, ledger: Ledger
) -> None:
    call = await books.call()
    found = await ledger.claim(call)
    assert not await ledger.record(ended(replace(found, attempt=2), call, output="2"))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert not await other.record(ended(found, call, output="3"))
    assert await ledger.record(ended(found, call, output="1"))
    assert not await ledger.record(ended(found, call, output="4"))
    assert (await books.row(call))["output"] == 1


async def test_a_service_registers_its_base_url(books: Books, ledger: Ledger) -> None:
    assert await books.owner.fetchval("select url from pgflows.base_urls") == BASE_URL


async def test_services_that_are_long_gone_are_forgotten(books: Books, ledger: Ledger) -> None:
    async with Ledger.open(books.database.dsn, BASE_URL):
        pass
    await books.owner.execute("update pgflows.services set started_at = now() - interval '2 days'")
    await books.until_services(1)
    async with Ledger.open(books.database.dsn, BASE_URL):
        rows = await books.owner.fetch("select service_id from pgflows.services order by 1")
    assert [r["service_id"] for r in rows] == [1, 3]
