"""One leader among all processes that open maintenance; it runs the chores.

The lead is an advisory lock of the session on which the chores run. So a leader that dies, or loses
its session, can do nothing more, and the next that asks leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from pgflows.config import Settings
from pgflows.database.connections import MAINTENANCE, Connection, connect
from pgflows.database.faults import ANY, is_away
from pgflows.database.orchestrator import df_is_ours
from pgflows.maintenance.pruning import PRUNE_EVERY_SECONDS, prune
from pgflows.maintenance.reviver import JUDGE_EVERY_SECONDS, Reviver
from pgflows.maintenance.sweeper import SWEEP_EVERY_SECONDS, sweep

log = logging.getLogger("pgflows.maintenance")

LEAD = "select pgflows.lead()"
ASK_EVERY_SECONDS = 2.0  # how long a dead leader's place may stay empty
FIRST_PAUSE_SECONDS = 0.1  # between attempts to reach the database
LONGEST_PAUSE_SECONDS = 5.0
IDLE_SHARE = 4  # a chore that takes long rests for this many times as long


@dataclass(frozen=True)
class Chore:
    """Something that the leader does every `every_seconds`."""

    name: str
    every_seconds: float
    run: Callable[[Connection], Awaitable[object]]
    beside_extension_only: bool = False


@asynccontextmanager
async def open_maintenance(settings: Settings, *, dsn: str) -> AsyncIterator[None]:
    """Takes part in maintenance for as long as the block lasts."""
    task = asyncio.create_task(keep(dsn, chores(settings)), name="pgflows maintenance")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def chores(settings: Settings) -> list[Chore]:
    """What there is to do."""
    return [
        Chore("pruning", PRUNE_EVERY_SECONDS, lambda conn: prune(conn, settings.retention_days)),
        Chore("the sweep of statuses", SWEEP_EVERY_SECONDS, sweep, beside_extension_only=True),
        Chore(
            "the revival of runs", JUDGE_EVERY_SECONDS, Reviver().revive, beside_extension_only=True
        ),
    ]


async def keep(dsn: str, chores: Sequence[Chore]) -> None:
    """Asks for the lead again and again, and does the chores while it has it."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            conn = await connect(dsn, MAINTENANCE)
            try:
                pause = FIRST_PAUSE_SECONDS
                await _wait_for_lead(conn)
                log.info("this process leads maintenance")
                ours = await df_is_ours(conn)
                await _lead(conn, [c for c in chores if not (ours and c.beside_extension_only)])
            finally:
                conn.terminate()
        except ANY as e:
            log.warning("maintenance lost its database session (%s); opening another", e)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


async def _wait_for_lead(conn: Connection) -> None:
    """Asks instead of waiting in the lock: a statement that waits would hold back every vacuum."""
    while not await conn.fetchval(LEAD):  # noqa: ASYNC110 - the event is in the database
        await asyncio.sleep(ASK_EVERY_SECONDS)


async def _lead(conn: Connection, chores: Sequence[Chore]) -> None:
    """Runs each chore when it is due, one at a time; ends by the loss of the session."""
    clock = asyncio.get_running_loop().time
    due = dict.fromkeys(chores, clock())
    while True:
        chore = min(chores, key=due.__getitem__)
        await asyncio.sleep(due[chore] - clock())
        began = clock()
        try:
            await chore.run(conn)
        except Exception as e:
            if is_away(e) or conn.is_closed():
                raise
            log.exception("%s failed; it is tried again", chore.name)
        due[chore] = clock() + max(chore.every_seconds, IDLE_SHARE * (clock() - began))
