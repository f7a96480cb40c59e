"""The ledger of steps, as one service process sees it: claims, records, and signatures.

Concurrent claims travel in one statement, and so do concurrent records: what is pending when the
last call ends goes into the next. The session that claims holds an advisory lock for as long as
this process lives; other services take over the steps of a process whose lock is free. When the
session is lost, a new one is opened under a new id, and the steps that still run here are adopted
under it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg

from pgflows.database import connections as db
from pgflows.errors import OutcomeRefused, ServiceUnavailable, SignatureRefused

log = logging.getLogger("pgflows.ledger.ledger")

Item = TypeVar("Item")
Answer = TypeVar("Answer")

OPEN = "select pgflows.open_service($1)"
CLAIM = "select * from pgflows.claim_steps($1, $2, $3, $4, $5, $6)"
RECORD = "select * from pgflows.record_steps($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
ADOPT = "select pgflows.adopt_steps($1, $2, $3, $4, $5)"
KEYS = "select * from pgflows.live_keys()"
MOST, KEY_REFRESH_SECONDS = 200, 1.0


@dataclass(frozen=True, slots=True)
class StepCall:
    """One push: the headers as they came, and the raw body."""

    df_id: str
    step: str
    step_key: str
    seq: str
    signature: str
    body: bytes

    @property
    def key_id(self) -> str:
        return self.signature.split(".")[1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says to a call; the words are those of pgflows.claim_steps."""

    verdict: str
    instance_id: UUID | None
    attempt: int
    output: str | None
    error: str | None
    retry: str | None
    retry_in: float


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
    retry_in: float | None = None


class Coalescer(Generic[Item, Answer]):
    """Calls `flush` with all items that came while its last call was under way.

    A statement is refused as a whole where one item is bad: then its halves are tried, so that
    the item fails alone.
    """

    def __init__(self, flush: Callable[[list[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._flush = flush
        self._pending: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:MOST], self._pending[MOST:]
            await self._answer(batch)
        self._task = None

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
        except Exception as e:
            if len(batch) > 1 and not db.is_lost(e):
                await self._answer(batch[: len(batch) // 2])
                await self._answer(batch[len(batch) // 2 :])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(e)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


@dataclass(frozen=True, slots=True)
class Session:
    """One life with the database: the id of this service, a connection for each kind of call."""

    service_id: int
    claims: db.Connection
    records: db.Connection

    def is_closed(self) -> bool:
        return self.claims.is_closed() or self.records.is_closed()

    def terminate(self) -> None:
        self.claims.terminate()
        self.records.terminate()


class Ledger:
    def __init__(self, dsn: str, base_url: str) -> None:
        self._dsn = dsn
        self._base_url = base_url
        self._session: Session | None = None
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()
        self._held: dict[tuple[UUID, str], int] = {}  # the attempt of each step that runs here
        self._keys: dict[str, bytes] = {}
        self._keys_read = -KEY_REFRESH_SECONDS
        self._reading_keys = asyncio.Lock()
        self._claims = Coalescer(self._claim_all)
        self._records = Coalescer(self._record_all)

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, base_url: str, settings: Any = None) -> AsyncIterator[Ledger]:
        """Announces this service and its base URL; after the block others may take its steps."""
        ledger = cls(dsn, base_url)
        await ledger._connect()
        keeper = asyncio.create_task(ledger._keep(), name="pgflows ledger")
        try:
            yield ledger
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            if ledger._session:
                ledger._session.terminate()

    # -- the session

    async def _connect(self) -> None:
        async with AsyncExitStack() as opened:
            claims = await self._raw("pgflows claims", synchronous_commit="off")
            opened.callback(claims.terminate)
            records = await self._raw("pgflows records")
            opened.callback(records.terminate)
            service_id = await claims.fetchval(OPEN, self._base_url)
            if self._session is not None and self._held:
                instances, keys = zip(*self._held, strict=True)
                attempts = list(self._held.values())
                before = self._session.service_id
                await records.execute(ADOPT, before, service_id, instances, keys, attempts)
            opened.pop_all()
        self._session = Session(service_id, claims, records)
        self._lost.clear()
        for conn in (claims, records):
            conn.add_termination_listener(lambda *_: self._lost.set())
        if self._session.is_closed():
            self._lost.set()
        self._opened.set()

    async def _raw(self, name: str, **settings: str) -> db.Connection:
        conn: db.Connection = await asyncpg.connect(
            self._dsn, server_settings={"application_name": name} | db.BY_KEY | settings
        )
        return conn

    async def _keep(self) -> None:
        """Opens a new session whenever one is lost."""
        pause = 0.05
        while True:
            await self._lost.wait()
            self._opened.clear()
            if self._session:
                self._session.terminate()
            try:
                await self._connect()
                pause = 0.05
                log.info("the ledger has a database session again")
            except (asyncpg.PostgresError, *db.LOST) as e:
                log.warning("the ledger lost its database session (%s); trying again", e)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    # -- claims

    async def claim(self, call: StepCall) -> Verdict:
        """May this process run the step now? Raises ServiceUnavailable without a database."""
        try:
            found = await self._claims.put(call)
        except (asyncpg.PostgresError, *db.LOST) as e:
            raise ServiceUnavailable(f"the ledger cannot be reached: {e}") from e
        if found.verdict == "run" and found.instance_id:
            self._held[found.instance_id, call.step_key] = found.attempt
        return found

    async def _claim_all(self, calls: list[StepCall]) -> list[Verdict]:
        session = self._session
        if session is None or not self._opened.is_set():
            raise ConnectionError("no database session")
        rows = await session.claims.fetch(
            CLAIM,
            session.service_id,
            [c.df_id for c in calls],
            [c.step for c in calls],
            [c.step_key for c in calls],
            [int(c.seq) for c in calls],
            [c.key_id for c in calls],
        )
        found = {
            r["ord"]: Verdict(
                r["verdict"],
                r["instance_id"],
                r["attempt"] or 0,
                r["output"],
                r["error"],
                r["retry"],
                r["retry_in"] or 0.0,
            )
            for r in rows
        }
        return [found[n] for n in range(1, len(calls) + 1)]

    # -- records

    async def record(self, record: Record) -> bool:
        """Returns when the record is durable; False where the step is not this process's any more.

        Waits for the database while it is away, and tries again what it refuses for a reason of
        its own (a deadlock, a full disk): an outcome is never dropped. Raises OutcomeRefused
        where it cannot be stored at all.
        """
        pause = 0.02
        while True:
            try:
                kept = await self._records.put(record)
                break
            except (asyncpg.PostgresError, ValueError, *db.LOST) as e:
                if db.is_unstorable(e):
                    raise OutcomeRefused(f"PostgreSQL cannot store the outcome: {e}") from e
                if db.is_lost(e):
                    self._lost.set()
                else:
                    log.warning("the outcome of %s is not recorded yet: %s", record.step_key, e)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                await self._opened.wait()
        held = (record.instance_id, record.step_key)
        if not kept or record.outcome != "retry":
            self._held.pop(held, None)
        else:
            self._held[held] = record.attempt + 1
        return kept

    async def _record_all(self, records: list[Record]) -> list[bool]:
        session = self._session
        if session is None or not self._opened.is_set():
            raise ConnectionError("no database session")
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

    # -- signatures

    async def verify(self, call: StepCall) -> None:
        """Raises SignatureRefused unless PostgreSQL signed exactly this call."""
        version, _, rest = call.signature.partition(".")
        key_id, _, given = rest.partition(".")
        if version != "v1" or not key_id or not given:
            raise SignatureRefused("the request is not signed", reason="unsigned")
        if not call.seq.isascii() or not call.seq.isdigit() or len(call.seq) > 9:
            raise SignatureRefused("the seq of the call is malformed", reason="tampered")
        secret = self._keys.get(key_id) or await self._refresh(key_id)
        if secret is None:
            raise SignatureRefused(f"the signing key {key_id!r} is unknown", reason="unknown-key")
        digest = hashlib.sha256(call.body).hexdigest()
        text = f"v1.{key_id}.{call.df_id}.{call.step}.{call.step_key}.{call.seq}.{digest}"
        expected = hmac.digest(secret, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise SignatureRefused("the signature does not fit the request", reason="tampered")

    async def _refresh(self, key_id: str) -> bytes | None:
        """Reads the keys again, at most once a second: an unknown id may be a new key.

        What comes too early waits: refusing it could refuse the first calls after a rotation.
        """
        arrived = time.monotonic()
        async with self._reading_keys:
            if key_id not in self._keys and self._keys_read <= arrived:
                due = self._keys_read + KEY_REFRESH_SECONDS
                await asyncio.sleep(max(due - time.monotonic(), 0))
                self._keys_read = time.monotonic()
                try:
                    conn = await self._raw("pgflows keys")
                    try:
                        self._keys = {r["key_id"]: r["secret"] for r in await conn.fetch(KEYS)}
                    finally:
                        await conn.close()
                except (asyncpg.PostgresError, *db.LOST) as e:
                    raise ServiceUnavailable(f"the signing keys cannot be read: {e}") from e
            return self._keys.get(key_id)
