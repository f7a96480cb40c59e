"""How a long-lived process of ours begins and ends, and the engine as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable

import uvloop

from pgflows.config import Settings
from pgflows.engine import open_engine

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_engine(settings: Settings, dsn: str) -> None:
    """Runs an engine until SIGINT or SIGTERM."""
    collect_seldom()
    uvloop.run(_engine(settings, dsn))


async def _engine(settings: Settings, dsn: str) -> None:
    async def run() -> None:
        async with open_engine(settings, dsn=dsn) as running:
            await running.run()

    task = asyncio.create_task(run())
    on_signals(task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def collect_seldom() -> None:
    """What was imported stays; the rest is mostly freed by reference counting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def on_signals(act: Callable[[], object]) -> None:
    """Calls `act` at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, act)
