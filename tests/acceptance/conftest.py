"""A service and engines as processes on one database, with steps whose effects are counted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from tests.acceptance.runs import EFFECTS as EFFECTS_OF_RUNS
from tests.acceptance.runs import SILENT, Runs
from tests.conftest import Database, Process, Spawn, free_port, until

EFFECTS = "create table public.effects (instance_id text, step_key text, attempt int)"
ATTEMPTS = (
    "select step_key, attempt, error_type from pgflows.all_attempts "
    "where instance_id = $1 order by 1, 2"
)


@dataclass
class Deployment:
    """Processes of one deployment, and what the database says about its runs."""

    spawn: Spawn
    dsn: str
    conn: asyncpg.Connection[Any]
    port: int

    def service(self, **environment: str) -> Process:
        return self._spawn("serve", "--no-engine", **environment).wait_until_ready()

    def engine(self, **environment: str) -> Process:
        return self._spawn("engine", **environment)

    def _spawn(self, *command: str, **environment: str) -> Process:
        return self.spawn(
            *command,
            dsn=self.dsn,
            port=self.port,
            EFFECTS_DSN=self.dsn,
            **{"PGFLOWS_APP": "tests.acceptance.deployment:app"} | environment,
        )

    async def forget_dead_engines(self) -> None:
        """What a dead engine held is free as soon as another beats."""
        await self.conn.execute(SILENT)

    async def start(self, name: str = "run", seconds: float = 0, workflow: str = "three") -> Any:
        given = json.dumps({"name": name, "seconds": seconds})
        return await self.conn.fetchval("select pgflows.start($1, $2)", workflow, given)

    async def status(self, instance: Any) -> str:
        query = "select status from pgflows.instances where instance_id = $1"
        return str(await self.conn.fetchval(query, instance))

    async def ended(self, instance: Any, seconds: float = 25) -> str:
        async def look() -> str | None:
            found = await self.status(instance)
            return found if found in ("completed", "failed", "cancelled") else None

        return str(await until(look, seconds, f"the end of {instance}"))

    async def effects(self, instance: Any, step_key: str | None = None) -> int:
        query = "select count(*) from public.effects where instance_id = $1 and step_key like $2"
        return int(await self.conn.fetchval(query, str(instance), step_key or "%"))

    async def attempts(self, instance: Any) -> dict[str, list[str | None]]:
        """How the attempts of each step ended: None is well."""
        found: dict[str, list[str | None]] = {}
        for row in await self.conn.fetch(ATTEMPTS, instance):
            found.setdefault(row["step_key"], []).append(row["error_type"])
        return found

    async def assert_recorded_once(self, instance: Any) -> None:
        """Every step of `three` is recorded with exactly one attempt that ended well."""
        attempts = await self.attempts(instance)
        good = {key: ends.count(None) for key, ends in attempts.items()}
        assert good == {"first#1": 1, "second#1": 1, "third#1": 1}


@pytest.fixture
async def deployment(database: Database, spawn: Spawn) -> AsyncIterator[Deployment]:
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(EFFECTS)
    yield Deployment(spawn, database.dsn, conn, free_port())
    await conn.close()


@pytest.fixture
async def runs(database: Database) -> AsyncIterator[Runs]:
    """Instances of plain `df` graphs, with a table for what they do."""
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(EFFECTS_OF_RUNS)
    yield Runs(conn)
    await conn.close()


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedServer]:
    """A migrated server of a test's own, which may be killed."""
    with tempfile.TemporaryDirectory(prefix="pgflows-crash-") as name:
        server = EmbeddedServer(Path(name))
        dsn = server.start()
        try:
            await migrate(dsn, Settings(dsn=dsn))
            yield server
        finally:
            server.stop("immediate")
