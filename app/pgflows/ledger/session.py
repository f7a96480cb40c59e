"""A step service's session with the database: it says that the service lives.

The connection that claims steps holds an advisory lock; other services take over the steps of a
service whose lock is free. When the session is lost, a new one is opened under a new id, and the
steps that still run in this process are adopted under it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from pgflows.database.connections import CLAIMS, RECORDS, Connection, connect
from pgflows.database.faults import ANY

log = logging.getLogger("pgflows.ledger")

OPEN = "select pgflows.open_service($1)"
ADOPT = "select pgflows.adopt_steps($1, $2, $3, $4, $5)"
FIRST_PAUSE_SECONDS = 0.05  # before a session is opened again
LONGEST_PAUSE_SECONDS = 1.0

Held = Mapping[tuple[UUID, str], int]
"""The attempt of each step that runs in this process, by instance and step key."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection for one statement at a time; the others wait for their turn."""

    conn: Connection
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        async with self.turn:
            return await self.conn.fetch(statement, *args)


@dataclass(frozen=True, slots=True)
class ServiceSession:
    """The id of this service for as long as its two connections last.

    Claims are committed asynchronously: a claim that a crash of the server undoes is made again.
    """

    service_id: int
    claims: Line
    records: Line

    def is_closed(self) -> bool:
        return self.claims.conn.is_closed() or self.records.conn.is_closed()

    def terminate(self) -> None:
        self.claims.conn.terminate()
        self.records.conn.terminate()


class SessionKeeper:
    """Keeps a session open, and opens a new one whenever it is lost."""

    def __init__(self, dsn: str, base_url: str, held: Callable[[], Held]) -> None:
        self._dsn = dsn
        self._base_url = base_url
        self._held = held
        self._session: ServiceSession | None = None
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Announces the service and its base URL; after the block others may take its steps."""
        await self._connect()
        keeper = asyncio.create_task(self._keep(), name="pgflows ledger")
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            if self._session:
                self._session.terminate()

    def current(self) -> ServiceSession:
        """The open session; raises ConnectionError if there is none."""
        if self._session is None or not self._opened.is_set():
            raise ConnectionError("the step service has no database session")
        return self._session

    def report_lost(self) -> None:
        """Tells that a statement found the session gone."""
        self._lost.set()

    async def wait_until_open(self) -> None:
        await self._opened.wait()

    async def _connect(self) -> None:
        async with AsyncExitStack() as opened:
            claims = await connect(self._dsn, CLAIMS)
            opened.callback(claims.terminate)
            records = await connect(self._dsn, RECORDS)
            opened.callback(records.terminate)
            service_id = await claims.fetchval(OPEN, self._base_url)
            held = dict(self._held())
            if self._session is not None and held:
                instances, keys = zip(*held, strict=True)
                before = self._session.service_id
                await records.execute(
                    ADOPT, before, service_id, instances, keys, list(held.values())
                )
            opened.pop_all()
        self._session = ServiceSession(service_id, Line(claims), Line(records))
        self._lost.clear()
        for conn in (claims, records):
            conn.add_termination_listener(lambda *_: self._lost.set())
        if self._session.is_closed():
            self._lost.set()
        self._opened.set()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._lost.wait()
            self._opened.clear()
            if self._session:
                self._session.terminate()
            try:
                await self._connect()
            except ANY as e:
                log.warning("the step service has no database session: %s", e)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
                log.info("the step service has a database session again")
