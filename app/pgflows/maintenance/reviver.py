"""Starts runs again that the extension gave up or lost, for a reason that lies outside of the run.

What is started again, what has failed for good and what has to wait is decided in SQL, one run at a
time: a run that cannot be judged stops no other.
"""

from __future__ import annotations

import logging
import time

import asyncpg

from pgflows.database.connections import Connection
from pgflows.database.faults import is_away

log = logging.getLogger("pgflows.maintenance")

JUDGE_EVERY_SECONDS = 0.5
LOST_EVERY_SECONDS = 3.0  # the extension opens a session for each look

TO_JUDGE = "select * from pgflows.to_judge($1)"
JUDGE = "select pgflows.judge($1, $2)"


class Reviver:
    """Remembers only when it looked for lost runs last."""

    def __init__(self) -> None:
        self._look_at = 0.0

    async def revive(self, conn: Connection) -> None:
        """Judges every run that waits for it."""
        lost = time.monotonic() >= self._look_at
        rows = await conn.fetch(TO_JUDGE, lost)
        if lost:
            self._look_at = time.monotonic() + LOST_EVERY_SECONDS
        for row in rows:
            try:
                verdict = await conn.fetchval(JUDGE, row["instance_id"], row["message"])
            except asyncpg.PostgresError as e:
                if is_away(e):
                    raise
                log.error("instance %s cannot be started again: %s", row["instance_id"], e)
                continue
            if verdict:
                log.warning("instance %s was %s", row["instance_id"], verdict)
