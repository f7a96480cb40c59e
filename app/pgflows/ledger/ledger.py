"""The ledger of steps as one service process sees it: claims before a step runs, records after.

Concurrent claims travel in one statement, and so do concurrent records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from pgflows.database.batching import Batcher
from pgflows.database.faults import ANY, is_away, is_unstorable
from pgflows.errors import OutcomeRefused, ServiceUnavailable
from pgflows.ledger.request import SignedRun, StepRequest
from pgflows.ledger.session import SessionKeeper

log = logging.getLogger("pgflows.ledger")

CLAIM_STEPS = "select * from pgflows.claim_steps($1, $2, $3, $4, $5, $6)"
CLAIM_PUSHES = "select * from pgflows.claim_pushes($1, $2, $3, $4, $5, $6, $7)"
RECORD = "select * from pgflows.record_steps($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
KEYS = "select * from pgflows.live_keys()"
FIRST_PAUSE_SECONDS = 0.02  # before a record is tried again
LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The ledger's answer to a request; the verdicts are those of pgflows.claim_steps."""

    verdict: str
    instance_id: UUID | None
    attempt: int
    output: str | None
    error: str | None
    retry: str | None
    retry_in: float  # seconds
    deaths: int  # attempts of this step that ended with their process
    weight: int  # of a suspect: it may have killed those processes


@dataclass(frozen=True, slots=True)
class Record:
    """How an attempt ended: completed, failed, retry (the claim is held) or release (it is not)."""

    instance_id: UUID
    step_key: str
    attempt: int
    seconds: float
    outcome: str
    output: str | None = None
    error: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    retry_in: float | None = None  # seconds


class Ledger:
    """Claims and records of one step service; `Ledger.open` announces the service."""

    def __init__(self, dsn: str, base_url: str) -> None:
        self._held: dict[tuple[UUID, str], int] = {}  # the attempt of each step that runs here
        self._suspects: dict[tuple[UUID, str], int] = {}  # the weight of those that are suspects
        self._sessions = SessionKeeper(dsn, base_url, lambda: self._held)
        self._pushes = Batcher(self._claim_pushes)
        self._claims = Batcher(self._claim_steps)
        self._records = Batcher(self._record_all)

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, base_url: str) -> AsyncIterator[Ledger]:
        """Announces this service and its base URL; after the block others may take its steps."""
        ledger = cls(dsn, base_url)
        async with ledger._sessions.open():
            yield ledger

    async def read_keys(self) -> Mapping[str, bytes]:
        """The keys that signatures are checked with. Raises ServiceUnavailable if they cannot be
        read: what is unknown then is not wrong.
        """
        try:
            rows = await self._sessions.current().claims.fetch(KEYS)
        except ANY as e:
            raise ServiceUnavailable(f"the signing keys cannot be read: {e}") from e
        return {r["key_id"]: r["secret"] for r in rows}

    # -- claims

    async def claim(self, request: StepRequest) -> Claim:
        """May this process run the step now? Raises ServiceUnavailable without a database."""
        batcher = self._pushes if isinstance(request.instance, SignedRun) else self._claims
        try:
            claim = await batcher.put(request)
        except ANY as e:
            raise ServiceUnavailable(f"the ledger cannot be reached: {e}") from e
        if claim.verdict == "run" and claim.instance_id:
            self._held[claim.instance_id, request.step_key] = claim.attempt
            if claim.weight:
                self._suspects[claim.instance_id, request.step_key] = claim.weight
        return claim

    async def _claim_pushes(self, requests: list[StepRequest]) -> list[Claim]:
        runs = [r.instance for r in requests if isinstance(r.instance, SignedRun)]
        named = [r.df_id for r in runs], [r.key_id for r in runs]
        return await self._claim(CLAIM_PUSHES, requests, *named)

    async def _claim_steps(self, requests: list[StepRequest]) -> list[Claim]:
        return await self._claim(CLAIM_STEPS, requests, [r.instance for r in requests])

    async def _claim(
        self, statement: str, requests: list[StepRequest], *runs: Sequence[object]
    ) -> list[Claim]:
        session = self._sessions.current()
        rows = await session.claims.fetch(
            statement,
            session.service_id,
            sum(self._suspects.values()),
            *runs,
            [r.step_key for r in requests],
            [r.step for r in requests],
            [r.seq for r in requests],
        )
        claims = {
            r["ord"]: Claim(
                r["verdict"],
                r["instance_id"],
                r["attempt"] or 0,
                r["output"],
                r["error"],
                r["retry"],
                r["retry_in"] or 0.0,
                r["deaths"] or 0,
                r["weight"] or 0,
            )
            for r in rows
        }
        return [claims[n] for n in range(1, len(requests) + 1)]

    # -- records

    async def record(self, record: Record) -> bool:
        """Returns when the record is durable; False if the step is another process's by now.

        Waits for the database while it is away, and tries again what it refuses for a reason of
        its own (a deadlock, a full disk): an outcome is never dropped. Raises OutcomeRefused if
        PostgreSQL cannot store it at all.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                kept = await self._records.put(record)
                break
            except (ValueError, *ANY) as e:
                if is_unstorable(e):
                    raise OutcomeRefused(f"PostgreSQL cannot store the outcome: {e}") from e
                if is_away(e):
                    self._sessions.report_lost()
                else:
                    log.warning("the outcome of %s is not recorded yet: %s", record.step_key, e)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                await self._sessions.wait_until_open()
        if not kept or record.outcome != "retry":
            self.forget(record.instance_id, record.step_key)
        else:
            self._held[record.instance_id, record.step_key] = record.attempt + 1
        return kept

    async def _record_all(self, records: list[Record]) -> list[bool]:
        session = self._sessions.current()
        rows = await session.records.fetch(
            RECORD,
            session.service_id,
            [r.instance_id for r in records],
            [r.step_key for r in records],
            [r.attempt for r in records],
            [r.seconds for r in records],
            [r.outcome for r in records],
            [r.output for r in records],
            [r.error for r in records],
            [r.error_type for r in records],
            [r.message for r in records],
            [r.traceback for r in records],
            [r.retry_in for r in records],
        )
        kept = {r["ord"]: r["recorded"] for r in rows}
        return [kept[n] for n in range(1, len(records) + 1)]

    def forget(self, instance_id: UUID, step_key: str) -> None:
        """The process gave the step up without a record."""
        self._held.pop((instance_id, step_key), None)
        self._suspects.pop((instance_id, step_key), None)
