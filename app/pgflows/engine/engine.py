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
from pgflows.engine.session import Session
from pgflows.engine.suspects import Suspects
from pgflows.errors import DatabaseGone, LoginRefused

log = logging.getLogger("pgflows.engine")


class Engine:
    """Runs instances until stopped. `run()` survives restarts of PostgreSQL."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self._settings = settings
        self._logins = Logins(dsn, settings.run_dsn)
        self._session: Session | None = None
        self.sessions = 0

    async def run(self) -> None:
        """Returns only by cancellation; then it gives its runs back."""
        before: uuid.UUID | None = None
        suspects = Suspects()
        pause = 0.1
        while True:
            session = Session(self._settings, self._logins, before, suspects)
            before = session.id
            try:
                self._session = session
                self.sessions += 1
                await session.run()
            except Exception as e:
                if not is_away(e) and not isinstance(e, (LoginRefused, DatabaseGone)):
                    log.exception("engine session %s failed; opening another", session.id)
                else:
                    log.warning(
                        "engine session %s lost the database (%s); opening another", session.id, e
                    )
            suspects.settle()
            pause = 0.1 if session.lasted > 5 else min(pause * 2, 2.0)
            await asyncio.sleep(pause)

    def stats(self) -> dict[str, Any]:
        """Counters of the current session, for /stats."""
        session = self._session
        return {"sessions": self.sessions} | (session.stats() if session else {})


@asynccontextmanager
async def open_engine(settings: Settings, *, dsn: str) -> AsyncIterator[Engine]:
    """An engine for a migrated database; `await engine.run()` inside the block.

    Raises SetupError where the server refuses to let it in as pgflows_run.
    """
    await check_run_role(dsn, settings.run_dsn)
    yield Engine(settings, dsn)
