"""A database that takes its `df` for the extension's: runs end there as the extension ends them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.database.connections import connect
from pgflows.database.migrations import migrate
from tests.conftest import Database
from tests.extension.conftest import let_in, stand_in
from tests.ledger.conftest import Books, Run

__all__ = ["beside", "beside_stand_in", "stand_in"]

INSTALLED = (
    "insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) "
    "values (1, 'pg_durable', 10, 'df'::regnamespace, false, '0.2.6')"
)
NO_TRIGGER = "drop trigger pgflows_sync_status on df.instances"
FAIL_NODE = (
    "update df.nodes set status = 'failed', node_type = $2, query = $3, "
    "result = to_jsonb($4::text) where instance_id = $1"
)
END = "update df.instances set status = $2, updated_at = now() - $3 * interval '1 s' where id = $1"
RUNS = "select df_id, reason from pgflows.df_runs where instance_id = $1 order by n"
SETTLE = "update pgflows.step_runs set status = $2, ended_at = now(), error = $3"
STEP_CALL = json.dumps({"url": "http://s/steps/work", "headers": {"X-Pgflows-Signature": "$e.s"}})


@dataclass(frozen=True)
class Beside(Books):
    """What the extension does to a run, and what maintenance then does."""

    async def end(self, run: Run, status: str, *, seconds_ago: float = 0) -> None:
        await self._as_worker(END, run.df_id, status, seconds_ago)

    async def _as_worker(self, statement: str, *args: Any) -> None:
        """The extension's worker is a superuser."""
        worker = await asyncpg.connect(self.database.admin_dsn)
        await worker.execute(statement, *args)
        await worker.close()

    async def fail(
        self,
        run: Run,
        message: str,
        *,
        node_type: str = "SQL",
        query: str = "select 1",
        seconds_ago: float = 0,
    ) -> None:
        await self._as_worker(FAIL_NODE, run.df_id, node_type, query, message)
        await self.end(run, "failed", seconds_ago=seconds_ago)

    async def fail_call(self, run: Run, *, seconds_ago: float = 0) -> None:
        """The service did not answer."""
        text = "HTTP connection failed: http://s/steps/work"
        await self.fail(run, text, node_type="HTTP", query=STEP_CALL, seconds_ago=seconds_ago)

    async def judge(self, run: Run, lost: str | None = None) -> str | None:
        """Whether it was started again or failed; None if it is left until later."""
        verdict: str | None = await self.owner.fetchval(
            "select split_part(pgflows.judge($1, $2), ':', 1)", run.instance_id, lost
        )
        return verdict

    async def sweep(self) -> int:
        return int(await self.owner.fetchval("select pgflows.sweep()"))

    async def newest(self, run: Run) -> Run:
        return Run(run.instance_id, await self.df_id(run.instance_id))

    async def runs(self, run: Run) -> list[tuple[str, str | None]]:
        return [tuple(r) for r in await self.owner.fetch(RUNS, run.instance_id)]

    async def state(self, run: Run) -> tuple[str, Any]:
        """The instance's status and error."""
        look = "select status, error from pgflows.instances where instance_id = $1"
        row = await self.owner.fetchrow(look, run.instance_id)
        assert row is not None
        return row["status"], row["error"]


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Beside]:
    owner, run = await connect(database.dsn), await connect(database.run_dsn)
    yield Beside(owner, run, database)
    await owner.close()
    await run.close()


@pytest.fixture
async def beside(database: Database) -> AsyncIterator[Beside]:
    """Quickly made: a database of this project's `df`, under the extension's name."""
    admin = await asyncpg.connect(database.admin_dsn)
    await admin.execute(INSTALLED)
    await admin.execute(NO_TRIGGER)
    await admin.close()
    async with opened(database) as found:
        yield found


@pytest.fixture
async def beside_stand_in(stand_in: Database) -> AsyncIterator[Beside]:
    """The stand-in for the extension, without its worker, for processes that look closely."""
    await let_in(stand_in)
    await migrate(stand_in.dsn, Settings(run_dsn=stand_in.run_dsn))
    async with opened(stand_in) as found:
        yield found
