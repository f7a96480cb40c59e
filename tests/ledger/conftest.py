"""The database's side of a deployment, without HTTP and without an engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from pgflows.database import connections as db
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.request import SignedRun, StepRequest
from pgflows.ledger.signing import Push
from pgflows.runner.runner import Runner
from tests.conftest import until
from tests.ledger.steps import BASE_URL, Steps, running

ANY = {"type": "object"}
BLOCKED = (
    "select exists (select from pg_stat_activity where datname = current_database() "
    "and application_name = $1 and wait_event_type = 'Lock')"
)
SERVICES = (
    "select count(*) = $1 from pg_locks l join pg_database d on d.oid = l.database "
    "where d.datname = current_database() and l.locktype = 'advisory' and l.objsubid = 2"
)
PUT = "select * from pgflows.put($1, $2, $3, $4, true, $5)"


@dataclass(frozen=True)
class Run:
    """A started instance."""

    instance_id: UUID
    df_id: str


@dataclass(frozen=True)
class Books:
    """Sessions of the owner and of pgflows_run on one test's database."""

    owner: db.Connection
    run: db.Connection
    database: Any

    async def define(
        self, name: str = "w", schema: dict[str, Any] | None = None, version: str = "1"
    ) -> None:
        graph = await self.owner.fetchval("select df.sql('select 1')")
        await self.owner.execute(
            "select pgflows.define($1, $2, $3, '{}', $4, '{}', 'sum')",
            name, version, graph, schema or ANY,
        )  # fmt: skip

    async def start(self, given: Any = None, **options: Any) -> Run:
        if not await self.owner.fetchval("select count(*) from pgflows.workflows"):
            await self.define()
        instance_id = await self.owner.fetchval(
            "select pgflows.start('w', $1, $2)", given or {}, options.get("key")
        )
        return Run(instance_id, await self.df_id(instance_id))

    async def df_id(self, instance_id: UUID) -> str:
        statement = (
            "select df_id from pgflows.df_runs where instance_id = $1 order by n desc limit 1"
        )
        return str(await self.owner.fetchval(statement, instance_id))

    async def pushes(
        self,
        run: Run,
        *keys: str,
        step: str = "work",
        given: Any = None,
        in_try: bool = False,
        retry: dict[str, Any] | None = None,
    ) -> list[Push]:
        """The signed requests of a graph that asks for these steps."""
        steps = [
            {"key": key, "step": step, "var": f"v{n}", "try": in_try, "retry": retry}
            | {"input": {} if given is None else given}
            for n, key in enumerate(keys or (f"{step}#1",))
        ]
        row = await self.run.fetchrow(PUT, run.df_id, "main", 0, {"@in": {}}, steps)
        assert row is not None
        asked = zip(row["keys"], row["signatures"], row["bodies"], strict=True)
        return [
            Push(run.df_id, step, key, str(row["seq"]), signature, body.encode())
            for key, signature, body in asked
        ]

    async def ask(self, run: Run, *keys: str, **options: Any) -> list[StepRequest]:
        """What a graph that asks for these steps has asked, once its pushes are verified."""
        return [as_request(push) for push in await self.pushes(run, *keys, **options)]

    async def request(self, *keys: str, **options: Any) -> StepRequest:
        """The request for the one step of a fresh run."""
        return (await self.ask(await self.start(), *keys, **options))[0]

    async def row(self, request: StepRequest) -> asyncpg.Record:
        """The ledger's row of a step."""
        row = await self.owner.fetchrow(
            "select s.* from pgflows.step_runs s join pgflows.df_runs r using (instance_id) "
            "where r.df_id = $1 and s.step_key = $2",
            request.df_id, request.step_key,
        )  # fmt: skip
        assert row is not None
        return row

    async def attempts(self, request: StepRequest) -> list[tuple[int, str | None]]:
        """Number and error type of each recorded attempt."""
        rows = await self.owner.fetch(
            "select a.attempt, a.error_type from pgflows.all_attempts a "
            "join pgflows.df_runs r using (instance_id) "
            "where r.df_id = $1 and a.step_key = $2 order by a.attempt",
            request.df_id, request.step_key,
        )  # fmt: skip
        return [(r["attempt"], r["error_type"]) for r in rows]

    async def cut_sessions(self, *names: str) -> None:
        """As if the server had gone and come back: sessions with these names have ended."""
        admin = await asyncpg.connect(self.database.admin_dsn)
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and application_name = any ($1)",
            names,
        )
        await admin.close()

    async def until_blocked(self, name: str = "pgflows command") -> None:
        """Returns when a session of that name waits for a lock."""
        await self._until(BLOCKED, name, what=f"a session {name!r} that waits for a lock")

    async def until_services(self, n: int) -> bool:
        """True as soon as so many services hold the lock that says that they live."""
        return await self._until(SERVICES, n, what=f"{n} services alive")

    async def _until(self, question: str, argument: Any, what: str) -> bool:
        # by a session of its own: the owner's may be the one that waits, or hold a snapshot
        conn = await asyncpg.connect(self.database.admin_dsn)
        try:
            return bool(await until(lambda: conn.fetchval(question, argument), what=what))
        finally:
            await conn.close()


@pytest.fixture
async def books(database: Any) -> AsyncIterator[Books]:
    owner = await db.connect(database.dsn)
    run = await db.connect(database.run_dsn)
    yield Books(owner, run, database)
    await owner.close()
    await run.close()


@pytest.fixture
async def ledger(database: Any) -> AsyncIterator[Ledger]:
    async with Ledger.open(database.dsn, BASE_URL) as ledger:
        yield ledger


def as_request(push: Push) -> StepRequest:
    """The request that a push becomes when its signature is good."""
    run = SignedRun(push.df_id, push.signature.split(".")[1])
    return StepRequest(run, push.step_key, push.step, int(push.seq), push.body)


def as_json(text: str | bytes | None) -> Any:
    """What a JSON text holds."""
    return json.loads(text or "null")


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def runner(database: Any, steps: Steps) -> AsyncIterator[Runner]:
    async with running(database, steps) as (runner, _):
        yield runner
