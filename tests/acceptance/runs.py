"""Instances of `df` under test: starting them, waiting for them, counting what they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.conftest import until

# All engines count as dead, as after three seconds of silence; those that live beat again.
SILENT = "update pgflows.workers set last_seen_at = last_seen_at - interval '1 hour'"
TERMINAL = ("completed", "failed", "cancelled")
EFFECTS = "create table if not exists public.effects (what text)"


def effect(what: str) -> str:
    """A node that leaves one row each time that it happens."""
    return f"df.sql($s$insert into public.effects values ('{what}')$s$)"  # noqa: S608 - a constant


@dataclass
class Runs:
    """What the database says of its instances."""

    conn: asyncpg.Connection[Any]

    async def start(self, graph: str, label: str | None = None) -> str:
        """`graph` is SQL that builds one."""
        return str(await self.conn.fetchval(f"select df.start({graph}, $1)", label))

    async def status(self, instance: str) -> str:
        return str(await self.conn.fetchval("select df.status($1)", instance))

    async def output(self, instance: str) -> str:
        look = "select output from df.instance_info($1)"
        return str(await self.conn.fetchval(look, instance))

    async def ended(self, instance: str, seconds: float = 20) -> str:
        async def look() -> str | None:
            found = await self.status(instance)
            return found if found in TERMINAL else None

        return str(await until(look, seconds, f"the end of {instance}"))

    async def all_ended(self, seconds: float = 20) -> None:
        """Waits until nothing is open."""
        await until(
            lambda: self.conn.fetchval("select not exists (select from df._work)"),
            seconds,
            "the end of all instances",
        )

    async def states(self) -> dict[str, int]:
        rows = await self.conn.fetch("select status, count(*) from df.instances group by 1")
        return {r[0]: r[1] for r in rows}

    async def begun(self, instance: str, node_type: str) -> bool:
        """True when a node of this type of the instance runs, or has run."""
        look = (
            "select exists (select from df.nodes where instance_id = $1 and node_type = $2 "
            "and status <> 'pending' and coalesce(query, '') not like $3)"
        )
        first = "insert into public.effects values%"
        return bool(await self.conn.fetchval(look, instance, node_type, first))

    async def work(self, instance: str) -> asyncpg.Record | None:
        return await self.conn.fetchrow("select * from df._work where instance_id = $1", instance)

    async def held(self, instance: str) -> bool:
        row = await self.work(instance)
        return row is not None and row["owner"] is not None

    async def parked(self, instance: str) -> bool:
        row = await self.work(instance)
        return row is not None and row["owner"] is None and row["state"] is not None

    async def effects(self) -> list[str]:
        return [r[0] for r in await self.conn.fetch("select what from public.effects order by 1")]

    async def engines(self) -> int:
        return int(await self.conn.fetchval("select count(*) from df._worker_epoch"))
