"""How a process that runs until a signal begins and ends."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
