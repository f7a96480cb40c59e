"""How a process that runs until a signal begins and ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

CANCEL_SECONDS = 1.0  # that tasks have to end when the rest of the process has
JOIN_SECONDS = 1.0  # that threads have

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def collect_seldom() -> None:
    """Makes garbage collection rare: reference counting frees most of what is not imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def on_signals(act: Callable[[], object]) -> None:
    """Calls `act` at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, act)


def run_to_end(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main`. Neither tasks that ignore their cancellation nor threads that block keep it
    from returning.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


def leave() -> None:
    """Ends the process although threads block that Python would wait for, such as one of a step
    that called asyncio.to_thread.
    """
    end = time.monotonic() + JOIN_SECONDS
    left = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    for thread in left:
        thread.join(max(end - time.monotonic(), 0))
    if any(t.is_alive() for t in left):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
