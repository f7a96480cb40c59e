"""What runs the graphs: engines of this project, or the worker of the extension pg_durable."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pgflows.cli.doctor.findings import BROKEN, OK, WARNING, Finding, Look
from pgflows.database.migrations.rights import worker_elsewhere

TRY_HTTP = (
    "builds of the extension differ, and say so only when they call: if they are official, they "
    "call hosts of Azure and api.github.com alone. Start a workflow, and look for `Blocked:` in "
    "`pgflows history`"
)
BLOCKED = (
    "select i.error ->> 'message' from pgflows.instances i "
    "where i.status = 'failed' and i.status <> 'completed' "  # has an index
    "and i.error ->> 'message' like '%Blocked:%' "
    "order by i.instance_id desc limit 1"
)
# A step that was done later than the newest such failure began shows that the build was exchanged.
CALLED = (
    "select 1 from pgflows.step_runs s where s.status = 'completed' and s.ended_at > coalesce(("
    "select max(i.created_at) from pgflows.instances i where i.status = 'failed' "
    "and i.status <> 'completed' and i.error ->> 'message' like '%Blocked:%'), '-infinity') limit 1"
)


async def orchestrator(look: Look) -> AsyncIterator[Finding]:
    if look.ours:
        found = "embedded df (the extension pg_durable is not installed)"
        yield Finding(OK, "orchestrator", found)
        return
    version = await look.conn.fetchval(
        "select extversion from pg_extension where extname = 'pg_durable'"
    )
    elsewhere = await worker_elsewhere(look.conn)
    found = f"extension pg_durable {version}"
    if elsewhere:
        yield Finding(BROKEN, "orchestrator", found, elsewhere)
    else:
        yield Finding(OK, "orchestrator", f"{found}, and its worker serves this database")


async def engines(look: Look) -> AsyncIterator[Finding]:
    alive = await look.conn.fetchval("select pgflows.live_engines()")
    if look.ours:
        if alive:
            yield Finding(OK, "engine", f"{alive} alive")
        else:
            yield Finding(WARNING, "engine", "none is alive", "pgflows engine, or pgflows serve")
    elif alive:
        yield Finding(OK, "engine", "the worker of pg_durable is alive")
    else:
        advice = (
            "see the server's log: pg_durable must be in shared_preload_libraries, and its "
            "setting worker_role must name a role that may log in"
        )
        yield Finding(BROKEN, "engine", "the worker of pg_durable shows no session", advice)


async def reach(look: Look) -> AsyncIterator[Finding]:
    """What HTTP nodes reach is compiled into the extension; only what happened shows it."""
    if look.ours:
        return
    if await look.conn.fetchval(CALLED):
        yield Finding(OK, "calls of steps", "this build of the extension has called steps")
    elif blocked := await look.conn.fetchval(BLOCKED):
        advice = (
            "this build refuses the host of a step service: serve the steps from a host that it "
            "allows, use a build that allows all, or drop the extension and migrate"
        )
        yield Finding(BROKEN, "calls of steps", blocked, advice)
    else:
        yield Finding(WARNING, "calls of steps", "none was made yet", TRY_HTTP)


async def pgmq(look: Look) -> AsyncIterator[Finding]:
    if await look.conn.fetchval("select to_regnamespace('pgmq')") is None:
        yield Finding(WARNING, "pgmq", "absent", "pgflows migrate installs it")
        return
    version = await look.conn.fetchval("select extversion from pg_extension where extname = 'pgmq'")
    yield Finding(OK, "pgmq", f"extension {version}" if version else "installed as SQL")
