"""Who may run a step: verdicts, processes that died, fences."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from pgflows.ledger.ledger import Claim, Ledger, Record
from pgflows.ledger.request import SignedRun, StepRequest
from tests.ledger.conftest import Books, as_json
from tests.ledger.steps import BASE_URL


def ended(found: Claim, request: StepRequest, outcome: str = "completed", **more: Any) -> Record:
    """The record of a claimed attempt."""
    assert found.instance_id is not None
    return Record(found.instance_id, request.step_key, found.attempt, 0.01, outcome, **more)


async def test_claim_of_a_requested_step_lets_it_run(books: Books, ledger: Ledger) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    assert (found.verdict, found.attempt) == ("run", 1)
    assert (await books.row(request))["status"] == "running"


async def test_claim_of_a_claimed_step_says_that_it_runs(books: Books, ledger: Ledger) -> None:
    request = await books.request()
    await ledger.claim(request)
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert (await ledger.claim(request)).verdict == "running"
        assert (await other.claim(request)).verdict == "running"


async def test_claims_of_two_services_let_each_step_run_once(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    requests = await books.ask(run, *(f"work#{n}" for n in range(50)))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        found = await asyncio.gather(
            *(ledger.claim(c) for c in requests), *(other.claim(c) for c in reversed(requests))
        )
    verdicts = [f.verdict for f in found]
    assert (verdicts.count("run"), verdicts.count("running")) == (50, 50)


async def test_claim_takes_the_step_of_a_dead_process_over_at_once(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    async with Ledger.open(books.database.dsn, BASE_URL) as doomed:
        await doomed.claim(request)
    await books.until_services(1)
    found = await ledger.claim(request)
    assert (found.verdict, found.attempt) == ("run", 2)
    assert await books.attempts(request) == [(1, "ProcessDied")]


async def test_lost_attempt_begins_when_the_one_before_it_ended(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    async with Ledger.open(books.database.dsn, BASE_URL) as doomed:
        found = await doomed.claim(request)
        await doomed.record(ended(found, request, "retry", error_type="Broke", retry_in=0.0))
    await books.until_services(1)
    await ledger.claim(request)
    rows = await books.owner.fetch(
        "select started_at, ended_at from pgflows.attempts order by attempt"
    )
    assert rows[1]["started_at"] >= rows[0]["ended_at"]


async def test_claim_of_a_completed_step_answers_with_its_output(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    assert await ledger.record(ended(found, request, output='{"r": 1}'))
    again = await ledger.claim(request)
    assert (again.verdict, as_json(again.output)) == ("completed", {"r": 1})
    assert await books.attempts(request) == [(1, None)]


async def test_claim_of_a_failed_step_answers_with_its_error(books: Books, ledger: Ledger) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    record = ended(found, request, "failed", error='{"type": "E", "message": "m"}', error_type="E")
    assert await ledger.record(record)
    again = await ledger.claim(request)
    assert (again.verdict, as_json(again.error)) == ("failed", {"type": "E", "message": "m"})
    assert await books.attempts(request) == [(1, "E")]


async def test_claim_of_a_released_step_says_when_it_is_due(books: Books, ledger: Ledger) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    await ledger.record(ended(found, request, "release", error_type="E", retry_in=300))
    again = await ledger.claim(request)
    assert again.verdict == "later"
    assert 290 < again.retry_in <= 300
    await books.owner.execute("update pgflows.step_runs set retry_at = now()")
    assert ((await ledger.claim(request)).verdict) == "run"
    assert (await books.row(request))["attempts"] == 2


async def test_record_of_a_retry_keeps_the_claim(books: Books, ledger: Ledger) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    assert await ledger.record(ended(found, request, "retry", error_type="E", retry_in=0.0))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert (await other.claim(request)).verdict == "running"
    assert await ledger.record(ended(replace(found, attempt=2), request, output="1"))
    assert await books.attempts(request) == [(1, "E"), (2, None)]


async def test_claim_of_a_cancelled_instance_says_so(books: Books, ledger: Ledger) -> None:
    waiting, running = await books.ask(await books.start(), "work#1", "work#2")
    found = await ledger.claim(running)
    await books.owner.execute("select df.cancel($1)", waiting.df_id)
    assert (await ledger.claim(waiting)).verdict == "cancelled"
    assert (await ledger.claim(running)).verdict == "cancelled"
    assert not await ledger.record(ended(found, running, output="1"))


async def test_claim_of_a_step_that_ended_long_ago_is_closed_to_pushes(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    await ledger.record(ended(await ledger.claim(request), request, output="1"))
    await books.owner.execute(
        "update pgflows.step_runs set requested_at = requested_at - interval '301 s', "
        "ended_at = ended_at - interval '301 s'"
    )
    assert (await ledger.claim(request)).verdict == "unknown"
    by_instance = replace(request, instance=(await books.row(request))["instance_id"])
    assert (await ledger.claim(by_instance)).verdict == "completed"


@pytest.mark.parametrize(
    "changed",
    [
        {"instance": SignedRun("00000000", "key")},
        {"instance": UUID(int=7)},
        {"step": "other"},
        {"step_key": "work#9"},
        {"seq": 7},
    ],
)
async def test_claim_of_what_the_run_did_not_ask_for_is_unknown(
    books: Books, ledger: Ledger, changed: dict[str, Any]
) -> None:
    request = await books.request()
    assert (await ledger.claim(replace(request, **changed))).verdict == "unknown"


async def test_record_counts_only_from_the_attempt_that_holds_the_claim(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    assert not await ledger.record(ended(replace(found, attempt=2), request, output="2"))
    async with Ledger.open(books.database.dsn, BASE_URL) as other:
        assert not await other.record(ended(found, request, output="3"))
    assert await ledger.record(ended(found, request, output="1"))
    assert not await ledger.record(ended(found, request, output="4"))
    assert (await books.row(request))["output"] == 1


async def test_ledger_registers_the_base_url_of_its_service(books: Books, ledger: Ledger) -> None:
    assert await books.owner.fetchval("select url from pgflows.base_urls") == BASE_URL


async def test_ledger_forgets_services_that_are_long_gone(books: Books, ledger: Ledger) -> None:
    async with Ledger.open(books.database.dsn, BASE_URL):
        pass
    await books.owner.execute("update pgflows.services set started_at = now() - interval '2 days'")
    await books.until_services(1)
    async with Ledger.open(books.database.dsn, BASE_URL):
        rows = await books.owner.fetch("select service_id from pgflows.services order by 1")
    assert [r["service_id"] for r in rows] == [1, 3]
