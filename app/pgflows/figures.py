"""What is counted in a database: instances, engines, queues."""

from __future__ import annotations

from pgflows.database.access import Access
from pgflows.messages import InstanceCount, Stats


async def stats(access: Access, *, totals: bool = True) -> Stats:
    """Figures of the whole database, and of these connections; `totals` adds what ended."""
    row = await access.read("select pgflows.stats($1)", totals)
    return Stats.model_validate(row[0] | {"pool": {"size": access.size, "idle": access.idle}})


async def ended_counts(access: Access) -> list[InstanceCount]:
    """How many instances ended, by workflow and status."""
    row = await access.read("select pgflows.ended_counts()")
    return [InstanceCount.model_validate(c) for c in row[0]]
