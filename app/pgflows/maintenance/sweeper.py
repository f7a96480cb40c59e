"""Copies what becomes of runs in the extension's `df` to pgflows.instances.

A database whose `df` is this project's has a trigger for it.
"""

from __future__ import annotations

from pgflows.database.connections import Connection

SWEEP_EVERY_SECONDS = 0.5

SWEEP = "select pgflows.sweep()"


async def sweep(conn: Connection) -> None:
    """Takes over every change since the last time."""
    await conn.fetchval(SWEEP)
