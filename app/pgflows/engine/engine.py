"""The engine process of the embedded `df`: one session with the database after another.

When a session ends, because the database went away or anything in it failed, the next is opened,
and the runs are claimed again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgflows.config import Settings
from pgflows.database.faults import is_away
from pgflows.database.roles import Logins, check_run_role
from pgflows.engine.session import EngineSession
from pgflows.engine.suspects import Suspects
from pgflows.errors import DatabaseGone, LoginRefused

log = logging.getLogger("pgflows.engine")

FIRST_PAUSE = 0.1  # seconds before another session is opened; doubled each time
LONGEST_PAUSE = 2.0  # seconds
STABLE = 5.0  # seconds after which a session counts as having worked


class Engine:
    """Runs instances until stopped. `serve()` survives restarts of PostgreSQL."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self._settings = settings
        self._logins = Logins(dsn, settings.run_dsn)
        self._session: EngineSession | None = None
        self.sessions = 0

    async def serve(self) -> None:
        """Ends by cancellation only; then it gives its runs back."""
        before: uuid.UUID | None = None
        suspects = Suspects()
        pause = FIRST_PAUSE
        while True:
            session = EngineSession(self._settings, self._logins, before, suspects)
            before = session.id
            try:
                self._session = session
                self.sessions += 1
                await session.live()
            except Exception as e:
                if not is_away(e) and not isinstance(e, (LoginRefused, DatabaseGone)):
                    log.exception("engine session %s failed; opening another", session.id)
                else:
                    log.warning(
                        "engine session %s lost the database (%s); opening another", session.id, e
                    )
            suspects.settle()
            pause = FIRST_PAUSE if session.lasted > STABLE else min(pause * 2, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def stats(self) -> dict[str, Any]:
        """Counters of the current session, for /stats."""
        session = self._session
        return {"sessions": self.sessions} | (session.stats() if session else {})


@asynccontextmanager
async def open_engine(settings: Settings, *, dsn: str) -> AsyncIterator[Engine]:
    """An engine for a migrated database; `await engine.serve()` inside the block.

    Raises SetupError if the server refuses a login as pgflows_run.
    """
    await check_run_role(dsn, settings.run_dsn)
    yield Engine(settings, dsn)
