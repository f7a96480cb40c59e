"""Starts runs again that the extension gave up or lost, for a reason that lies outside of the run.

What is started again, what has failed for good and what has to wait is decided in SQL, one run at a
time: a run that cannot be judged stops no other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from pgflows.crash import crash_point
from pgflows.database.connections import Connection
from pgflows.database.faults import is_away

log = logging.getLogger("pgflows.maintenance")

JUDGE_EVERY_SECONDS = 0.5
LOST_EVERY_SECONDS = {"pending": 3.0, "running": 60.0}  # by status; a look costs per open run
SPARE_SECONDS = 30.0  # between two attempts to judge a run that raised an error

FAILED = "select f as instance_id, null::text as message from pgflows.failed_runs() f"
LOST = "select instance_id, message from pgflows.lost_runs($1)"
JUDGE = "select pgflows.judge($1, $2)"


class Reviver:
    """Remembers when to look for lost runs, and when to try one again that could not be judged."""

    def __init__(self) -> None:
        self._look_at = dict.fromkeys(LOST_EVERY_SECONDS, 0.0)
        self._spared: dict[UUID, float] = {}

    async def revive(self, conn: Connection) -> None:
        """Judges every run that waits for it."""
        rows = await conn.fetch(FAILED)
        for status, seconds in LOST_EVERY_SECONDS.items():
            if time.monotonic() >= self._look_at[status]:
                rows += await conn.fetch(LOST, status)
                self._look_at[status] = time.monotonic() + seconds
        await self._judge(conn, rows)

    async def _judge(self, conn: Connection, rows: Sequence[asyncpg.Record]) -> None:
        now = time.monotonic()
        self._spared = {i: until for i, until in self._spared.items() if until > now}
        for row in rows:
            if row["instance_id"] in self._spared:
                continue
            crash_point("before_judge")
            try:
                verdict = await conn.fetchval(JUDGE, row["instance_id"], row["message"])
            except asyncpg.PostgresError as e:
                if is_away(e):
                    raise
                log.error("instance %s cannot be started again: %s", row["instance_id"], e.args[0])
                self._spared[row["instance_id"]] = now + SPARE_SECONDS
                continue
            if verdict:
                log.warning("instance %s %s", row["instance_id"], verdict)
