"""The ledger as a process uses it: many callers in one statement, and a database that goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from pgflows.errors import OutcomeRefused, ServiceUnavailable
from pgflows.ledger.ledger import Ledger
from tests.conftest import until
from tests.ledger.conftest import Books
from tests.ledger.test_claims import ended

SESSIONS = ("pgflows claims", "pgflows records")


def counted(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, name: str) -> list[int]:
    """How many entries each statement carried."""
    sizes: list[int] = []
    batcher = getattr(ledger, name)
    flush = batcher._flush

    async def count(items: list[Any]) -> Any:
        sizes.append(len(items))
        return await flush(items)

    monkeypatch.setattr(batcher, "_flush", count)
    return sizes


async def test_concurrent_claims_and_records_share_statements(
    books: Books, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await books.ask(await books.start(), *(f"work#{n}" for n in range(300)))
    claims, records = (
        counted(monkeypatch, ledger, "_pushes"),
        counted(monkeypatch, ledger, "_records"),
    )
    found = await asyncio.gather(*(ledger.claim(c) for c in requests))
    kept = await asyncio.gather(
        *(ledger.record(ended(f, c, output="1")) for f, c in zip(found, requests, strict=True))
    )
    assert all(kept)
    assert (sum(claims), sum(records)) == (300, 300)
    assert len(claims) <= 3
    assert len(records) <= 3


async def test_claim_that_is_alone_waits_for_no_other(books: Books, ledger: Ledger) -> None:
    requests = await books.ask(await books.start(), *(f"work#{n}" for n in range(20)))
    await ledger.claim(requests[0])
    began = time.perf_counter()
    for request in requests[1:]:
        await ledger.claim(request)
    assert (time.perf_counter() - began) / 19 < 0.02


async def test_record_that_cannot_be_stored_spoils_no_other(books: Books, ledger: Ledger) -> None:
    requests = await books.ask(await books.start(), *(f"work#{n}" for n in range(9)))
    found = await asyncio.gather(*(ledger.claim(c) for c in requests))
    outputs = ["1"] * 9
    outputs[4] = '"\\u0000"'
    results = await asyncio.gather(
        *(
            ledger.record(ended(f, c, output=o))
            for f, c, o in zip(found, requests, outputs, strict=True)
        ),
        return_exceptions=True,
    )
    assert isinstance(results.pop(4), OutcomeRefused)
    assert results == [True] * 8


async def test_ledger_opens_a_session_that_was_cut_again(books: Books, ledger: Ledger) -> None:
    first, second = await books.ask(await books.start(), "work#1", "work#2")
    found = await ledger.claim(first)
    await books.cut_sessions(*SESSIONS)
    assert await ledger.record(ended(found, first, output="1"))
    assert (await ledger.claim(second)).verdict == "run"
    assert await books.attempts(first) == [(1, None)]


async def test_claim_without_a_session_says_that_the_ledger_is_away(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    admin = await asyncpg.connect(books.database.admin_dsn)
    name = books.database.name
    await admin.execute(f"alter database {name} connection limit 0")
    await books.cut_sessions(*SESSIONS)
    with pytest.raises(ServiceUnavailable):
        await ledger.claim(request)
    await admin.execute(f"alter database {name} connection limit -1")
    await admin.close()

    async def verdict() -> str | None:
        with suppress(ServiceUnavailable):
            return (await ledger.claim(request)).verdict
        return None

    assert await until(verdict, what="a session") == "run"


async def test_claim_that_the_server_forgot_in_a_crash_is_made_again(
    books: Books, ledger: Ledger
) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    await books.owner.execute(
        "update pgflows.step_runs set status = 'requested', attempts = 0, service_id = null, "
        "started_at = null"
    )
    await books.cut_sessions(*SESSIONS)
    assert await ledger.record(ended(found, request, output="1"))
    assert await books.attempts(request) == [(1, None)]


async def test_ledger_does_not_take_back_what_another_service_took_over(
    books: Books, ledger: Ledger, database: Any
) -> None:
    request = await books.request()
    found = await ledger.claim(request)
    other = await books.owner.fetchval("select pgflows.open_service('http://other')")
    await books.owner.execute("update pgflows.step_runs set service_id = $1, attempts = 2", other)
    await books.cut_sessions(*SESSIONS)
    assert not await ledger.record(ended(found, request, output="1"))


@asynccontextmanager
async def blocked_record(books: Books, ledger: Ledger) -> AsyncIterator[asyncio.Task[bool]]:
    """A record that waits, as another session holds a lock on its row until the block ends."""
    request = await books.request()
    found = await ledger.claim(request)
    async with books.owner.transaction():
        await books.owner.execute("select from pgflows.step_runs for update")
        recording = asyncio.create_task(ledger.record(ended(found, request, output="1")))
        await books.until_blocked("pgflows records")
        yield recording


async def test_record_waits_while_another_session_locks_the_row(
    books: Books, ledger: Ledger
) -> None:
    async with blocked_record(books, ledger) as recording:
        assert not recording.done()
    assert await recording


async def test_record_outlives_a_statement_that_was_cancelled(
    books: Books, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async def noticed() -> bool:
        return "is not recorded yet" in caplog.text

    async with blocked_record(books, ledger) as recording:
        await books.owner.execute(
            "select pg_cancel_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = 'pgflows records'"
        )
        await until(noticed)
        await books.until_blocked("pgflows records")
        assert not recording.done()
    assert await recording


async def test_ledger_that_is_closed_holds_no_lock(books: Books) -> None:
    async with Ledger.open(books.database.dsn, "http://x"):
        assert await books.until_services(1)
    assert await books.until_services(0)
