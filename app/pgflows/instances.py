"""What can be asked of workflows and instances: one function a question, one SQL function each.

The HTTP routes call these with the service's pool. Errors that our SQL raises arrive as the
classes of `errors.py`; nothing here catches anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from pgflows.database.connections import Pool
from pgflows.database.faults import from_sqlstate
from pgflows.messages import (
    CancelRequest,
    History,
    Instance,
    InstanceCount,
    InstancePage,
    Started,
    StartRequest,
    Stats,
    Status,
    WorkflowInfo,
    WorkflowList,
)

_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.004, 0.25, 1.2


@asynccontextmanager
async def _typed_errors() -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.PostgresError as e:
        if ours := from_sqlstate(e):
            raise ours from e
        raise


async def _value(pool: Pool, statement: str, *args: object) -> Any:
    async with _typed_errors():
        return await pool.fetchval(statement, *args)


async def start(
    pool: Pool, workflow: str, request: StartRequest, *, idempotency_key: str | None = None
) -> Started:
    """Start a workflow, or find the instance that this key started before."""
    return Started.model_validate(
        await _value(
            pool,
            "select pgflows.start_instance($1, $2, $3, $4, $5)",
            workflow,
            request.input,
            idempotency_key,
            request.label,
            request.attributes,
        )
    )


async def start_and_wait(
    pool: Pool,
    workflow: str,
    request: StartRequest,
    *,
    idempotency_key: str | None = None,
    seconds: float = 0,
) -> Started:
    """Start, and give the run up to `seconds` to end: the answer is how it stands then."""
    started = await start(pool, workflow, request, idempotency_key=idempotency_key)
    if seconds <= 0 or started.ended:
        return started
    instance = await wait_for_end(pool, started.instance_id, seconds)
    return Started(**instance.model_dump(), created=started.created)


async def wait_for_end(pool: Pool, instance_id: UUID, seconds: float) -> Instance:
    """Look at an instance ever less often until it has ended or the time is over."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    pause = _POLL_FIRST
    while not await _value(pool, "select pgflows.has_ended($1)", instance_id):
        left = end - clock()
        if left <= 0:
            break
        await asyncio.sleep(min(pause, left))
        pause = min(pause * _POLL_GROWTH, _POLL_LAST)
    return await get(pool, str(instance_id))


async def get(pool: Pool, instance: str) -> Instance:
    """One instance, by its uuid or a df id."""
    return Instance.model_validate(
        await _value(pool, "select pgflows.get_instance($1)", instance.lower())
    )


async def history(pool: Pool, instance: str) -> History:
    """An instance with its steps, attempts and graph nodes."""
    return History.model_validate(
        await _value(pool, "select pgflows.history($1)", instance.lower())
    )


async def list_instances(
    pool: Pool,
    *,
    workflow: str | None = None,
    status: Status | None = None,
    label: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
    cursor: UUID | None = None,
) -> InstancePage:
    """A page of instances, newest first."""
    return InstancePage.model_validate(
        await _value(
            pool,
            "select pgflows.list_instances($1, $2, $3, $4, $5, $6)",
            workflow,
            status,
            label,
            since,
            limit,
            cursor,
        )
    )


async def cancel(pool: Pool, instance: str, request: CancelRequest | None = None) -> Instance:
    """End a live instance; one that has ended is answered as it is.

    The run may end by itself at the same moment and lock the same rows from the other side:
    PostgreSQL then picks a loser, and if that is the cancel, it is simply made again.
    """
    reason = request.reason if request else None
    statement = "select pgflows.cancel_instance($1, $2)"
    document = await _again_on_deadlock(lambda: _value(pool, statement, instance.lower(), reason))
    return Instance.model_validate(document)


async def _again_on_deadlock(act: Callable[[], Awaitable[Any]], tries: int = 3) -> Any:
    for _ in range(tries - 1):
        try:
            return await act()
        except asyncpg.DeadlockDetectedError:
            continue
    return await act()


async def workflows(pool: Pool) -> WorkflowList:
    """Every workflow that can be started."""
    return WorkflowList.model_validate(
        {"workflows": await _value(pool, "select pgflows.list_workflows()")}
    )


async def workflow(pool: Pool, name: str) -> WorkflowInfo:
    """One workflow in its active version."""
    return WorkflowInfo.model_validate(await _value(pool, "select pgflows.get_workflow($1)", name))


async def stats(pool: Pool, *, totals: bool = True) -> Stats:
    """Figures of the whole database, and of this pool; `totals` may count millions of rows."""
    document = await _value(pool, "select pgflows.stats($1)", totals)
    pool_stats = {"size": pool.get_size(), "idle": pool.get_idle_size()}
    return Stats.model_validate(document | {"pool": pool_stats})


async def ended_counts(pool: Pool) -> list[InstanceCount]:
    """How many instances ended, by workflow and status; it counts all that are kept."""
    counts = await _value(pool, "select pgflows.ended_counts()")
    return [InstanceCount.model_validate(c) for c in counts]


async def live_engines(pool: Pool) -> int:
    """How many engines have shown a sign of life lately."""
    return int(await _value(pool, "select pgflows.live_engines()"))
