"""Steps whose processes die: counted, tried with ever fewer others, and given up in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgflows.ledger.ledger import Claim, Ledger
from pgflows.ledger.request import StepRequest
from tests.ledger.conftest import Books, as_json
from tests.ledger.steps import BASE_URL
from tests.ledger.test_claims import ended


async def die(books: Books, *requests: StepRequest) -> list[Claim]:
    """A process claims these steps and dies before it records an outcome."""
    async with Ledger.open(books.database.dsn, BASE_URL) as doomed:
        claims = [await doomed.claim(request) for request in requests]
    await books.until_services(0)
    return claims


async def set_deaths(books: Books, *deaths: int) -> list[StepRequest]:
    """Requests for steps whose processes died so often."""
    keys = [f"work#{n}" for n in range(len(deaths))]
    requests = await books.ask(await books.start(), *keys)
    for key, count in zip(keys, deaths, strict=True):
        await books.owner.execute(
            "update pgflows.step_runs set deaths = $1, attempts = $1 where step_key = $2",
            count, key,
        )  # fmt: skip
    return requests


async def test_step_that_kills_its_process_is_given_up_at_the_fifth_death(books: Books) -> None:
    request = await books.request()
    for attempt in range(1, 6):
        (claim,) = await die(books, request)
        assert (claim.verdict, claim.attempt, claim.deaths) == ("run", attempt, attempt - 1)
    async with Ledger.open(books.database.dsn, BASE_URL) as ledger:
        given_up = await ledger.claim(request)
        again = await ledger.claim(request)
    assert (given_up.verdict, again.verdict) == ("failed", "failed")
    error = as_json(given_up.error)
    assert error["type"] == "ProcessDied"
    assert "died 5 times" in error["message"]
    assert await books.attempts(request) == [(n, "ProcessDied") for n in range(1, 6)]


async def test_suspects_of_two_deaths_run_ten_at_once(books: Books, ledger: Ledger) -> None:
    requests = await set_deaths(books, *([2] * 12))
    claims = [await ledger.claim(request) for request in requests]
    assert [c.verdict for c in claims] == ["run"] * 10 + ["suspect"] * 2
    assert await ledger.record(ended(claims[0], requests[0], output="1"))
    assert (await ledger.claim(requests[11])).verdict == "run"


async def test_suspect_of_three_deaths_runs_without_other_suspects(
    books: Books, ledger: Ledger
) -> None:
    two, three, four, fresh = await set_deaths(books, 2, 3, 4, 0)
    running = await ledger.claim(two)
    assert (await ledger.claim(three)).verdict == "suspect"
    assert (await ledger.claim(fresh)).verdict == "run"
    assert await ledger.record(ended(running, two, output="1"))
    assert (await ledger.claim(three)).verdict == "run"
    assert (await ledger.claim(four)).verdict == "suspect"


async def test_neighbours_of_a_step_that_kills_complete(books: Books) -> None:
    killer, *others = await books.ask(await books.start(), *(f"work#{n}" for n in range(6)))
    verdict = "run"
    while verdict != "failed":
        async with Ledger.open(books.database.dsn, BASE_URL) as process:
            claims = [(r, await process.claim(r)) for r in (*others, killer)]
            verdict = claims[-1][1].verdict
            if verdict == "suspect":  # the killer does not run, so the process lives
                for request, claim in claims:
                    if claim.verdict == "run":
                        assert await process.record(ended(claim, request, output="1"))
                        others.remove(request)
        await books.until_services(0)
    assert others == []
    assert (await books.row(killer))["deaths"] == 5


async def test_revived_step_begins_without_its_deaths(books: Books, ledger: Ledger) -> None:
    run = await books.start()
    (request,) = await books.ask(run)
    await books.owner.execute("update pgflows.step_runs set deaths = 5, attempts = 5")
    assert (await ledger.claim(request)).verdict == "failed"
    await books.owner.execute("update pgflows.instances set status = 'failed'")
    await books.owner.fetchval("select pgflows.revive($1)", run.instance_id)
    claim = await ledger.claim(replace(request, instance=run.instance_id))
    assert (claim.verdict, claim.deaths) == ("run", 0)


async def waits_for(books: Books, request: StepRequest) -> Any:
    history = await books.owner.fetchval("select pgflows.history($1)", request.df_id)
    return history["steps"][0]["waits_for"]


async def test_history_says_what_a_step_waits_for(books: Books) -> None:
    request = await books.request()
    assert await waits_for(books, request) == "a call of attempt 1"
    async with Ledger.open(books.database.dsn, BASE_URL) as ledger:
        await ledger.claim(request)
        assert await waits_for(books, request) == f"attempt 1, which runs at {BASE_URL}"
    await books.until_services(0)
    assert await waits_for(books, request) == (
        f"the next call: the process of attempt 1 ({BASE_URL}) is lost"
    )
    async with Ledger.open(books.database.dsn, BASE_URL) as ledger:
        claim = await ledger.claim(request)
        await ledger.record(ended(claim, request, "release", error_type="E", retry_in=300.0))
        assert "attempt 3, which is due at 20" in await waits_for(books, request)
        await books.owner.execute("update pgflows.step_runs set retry_at = null")
        claim = await ledger.claim(request)
        await ledger.record(ended(claim, request, output="1"))
        assert await waits_for(books, request) is None


@pytest.mark.parametrize("deaths", [2, 4])
async def test_history_says_that_a_step_is_a_suspect(
    books: Books, ledger: Ledger, deaths: int
) -> None:
    (request,) = await set_deaths(books, deaths)
    assert f"{deaths} attempts ended with the death of their process" in await waits_for(
        books, request
    )
