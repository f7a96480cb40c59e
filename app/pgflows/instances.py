"""What can be asked of workflows and instances: one function a question, one SQL function each.

What holds values of users is answered as the text of a JSON document, as PostgreSQL wrote it:
jsonb holds numbers and depths that Python's readers and writers of JSON refuse.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from pgflows.database.access import Access
from pgflows.messages import CancelRequest, StartRequest, Status

POLL_FIRST_SECONDS = 0.004
POLL_LAST_SECONDS = 0.25
POLL_GROWTH = 1.2  # of the pause between two looks

DEADLOCK_TRIES = 3


@dataclass(frozen=True)
class Begun:
    """An instance that a start answered with. `document` is a `Started`."""

    instance_id: UUID
    created: bool
    ended: bool
    document: str


async def start(
    access: Access,
    workflow: str,
    request: StartRequest,
    *,
    idempotency_key: str | None = None,
    seconds: float = 0,
) -> Begun:
    """Start a workflow, or find the instance that this key started before.

    The run has up to `seconds` to end: the answer is how it stands then.
    """
    row = await access.change(
        "select d::text, d ->> 'instance_id', (d -> 'created')::boolean, "
        "d ->> 'ended_at' is not null from pgflows.start_instance($1, $2, $3, $4, $5) d",
        workflow,
        request.input,
        idempotency_key,
        request.label,
        request.attributes,
        subject=("start", workflow, idempotency_key) if idempotency_key is not None else None,
        busy="another transaction, still open, is starting workflow "
        f"{workflow} with idempotency key {idempotency_key}",
    )
    begun = Begun(UUID(row[1]), row[2], row[3], document=row[0])
    if seconds <= 0 or begun.ended:
        return begun
    return await _wait(access, begun, seconds)


async def _wait(access: Access, begun: Begun, seconds: float) -> Begun:
    """Look at an instance, less and less often, until it has ended or the time is over."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    pause = POLL_FIRST_SECONDS
    while not (await access.read("select pgflows.has_ended($1)", begun.instance_id))[0]:
        left = end - clock()
        if left <= 0:
            break
        await asyncio.sleep(min(pause, left))
        pause = min(pause * POLL_GROWTH, POLL_LAST_SECONDS)
    row = await access.read(
        "select d::text, d ->> 'ended_at' is not null from (select pgflows.get_instance($1) || "
        "jsonb_build_object('created', $2::boolean)) g(d)",
        str(begun.instance_id),
        begun.created,
    )
    return Begun(begun.instance_id, begun.created, row[1], document=row[0])


async def get(access: Access, instance: str) -> str:
    """One instance, by its uuid or a df id."""
    return _text(await access.read("select pgflows.get_instance($1)::text", instance.lower()))


async def history(access: Access, instance: str) -> str:
    """An instance with its steps, attempts and graph nodes."""
    return _text(await access.read("select pgflows.history($1)::text", instance.lower()))


async def list_instances(
    access: Access,
    *,
    workflow: str | None = None,
    status: Status | None = None,
    label: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
    cursor: UUID | None = None,
) -> str:
    """A page of instances, newest first."""
    return _text(
        await access.read(
            "select pgflows.list_instances($1, $2, $3, $4, $5, $6)::text",
            workflow,
            status,
            label,
            since,
            limit,
            cursor,
        )
    )


async def cancel(access: Access, instance: str, request: CancelRequest | None = None) -> str:
    """End a live instance; one that has ended is answered as it is.

    The run may end by itself at the same moment and lock the same rows from the other side. If
    PostgreSQL ends the cancel for that, it is made again.
    """
    reason = request.reason if request else None
    tries_left = DEADLOCK_TRIES
    while True:
        tries_left -= 1
        try:
            return _text(
                await access.change(
                    "select pgflows.cancel_instance($1, $2)::text",
                    instance.lower(),
                    reason,
                    subject=("cancel", instance.lower()),
                    busy=f"another transaction, still open, is changing instance {instance}",
                )
            )
        except asyncpg.DeadlockDetectedError:
            if not tries_left:
                raise


async def workflows(access: Access) -> str:
    """Every workflow that can be started."""
    return _text(
        await access.read("select jsonb_build_object('workflows', pgflows.list_workflows())::text")
    )


async def workflow(access: Access, name: str) -> str:
    """One workflow in its active version."""
    return _text(await access.read("select pgflows.get_workflow($1)::text", name))


def _text(row: asyncpg.Record) -> str:
    text: str = row[0]
    return text
