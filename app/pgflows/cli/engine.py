"""The command engine: an engine as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib

import typer
import uvloop

from pgflows.cli.database import Dsn, check_connection, connection, require_database
from pgflows.cli.process import collect_seldom, on_signals
from pgflows.cli.waiting import until_served
from pgflows.config import Settings
from pgflows.database.orchestrator import needs_engine
from pgflows.engine import open_engine
from pgflows.maintenance import open_maintenance

commands = typer.Typer()


@commands.command()
def engine(dsn: Dsn = None) -> None:
    """An engine as a process of its own; run as many as you like.

    Beside the extension pg_durable, which runs the graphs itself, it does maintenance only.
    """
    settings = Settings.given(dsn=dsn)
    address = require_database(settings)
    asyncio.run(until_served(lambda: check_connection(address, migrated=True)))
    collect_seldom()
    uvloop.run(_run_until_signal(settings, address))


async def _run_until_signal(settings: Settings, dsn: str) -> None:
    async def run() -> None:
        needed = await until_served(lambda: _needs_engine(dsn))
        async with open_maintenance(settings, dsn=dsn):
            if not needed:
                await asyncio.Event().wait()
            async with open_engine(settings, dsn=dsn) as running:
                await running.serve()

    task = asyncio.create_task(run())
    on_signals(task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _needs_engine(dsn: str) -> bool:
    async with connection(dsn) as conn:
        return await needs_engine(conn)
