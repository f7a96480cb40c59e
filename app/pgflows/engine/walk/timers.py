"""The nodes that wait for a time: sleeps and schedules. Deadlines are durable before the wait, so
no restart begins it anew.
"""

from __future__ import annotations

import asyncio
import datetime as dt

from cronsim import CronSim

from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import Result
from pgflows.engine.walk.branch import Branch

DEADLINE = "until"  # the section of the resume state


async def sleep(node: Node, branch: Branch) -> Result:
    seconds = int(node.query or 0)
    await _wait_once(node, branch, branch.run.clock.now() + seconds)
    return branch.complete(node, Result(f'{{"slept":true,"seconds":{seconds}}}'))


async def wait_for_schedule(node: Node, branch: Branch) -> Result:
    """The next tick of the cron expression, in UTC, counted from when the node begins."""
    now = dt.datetime.fromtimestamp(branch.run.clock.now(), dt.UTC)
    await _wait_once(node, branch, next(CronSim(node.spec["cron_expr"], now)).timestamp())
    return branch.complete(node, Result('{"scheduled":true}'))


async def _wait_once(node: Node, branch: Branch, until: float) -> None:
    """Waits until the deadline that the node had in its first life, or else until this one."""
    with branch.waiting(node):
        known = branch.recall(DEADLINE, branch.key(node))
        if known is not None:
            await wait_until(branch, known)
        elif until > branch.run.clock.now():
            await wait_durably(node, branch, until)
    branch.remember(DEADLINE, branch.key(node), None)


async def wait_durably(node: Node, branch: Branch, until: float) -> None:
    """Makes the deadline durable and waits for it."""
    branch.remember(DEADLINE, branch.key(node), until)
    await branch.flush()
    await wait_until(branch, until)


async def wait_until(branch: Branch, until: float) -> None:
    with branch.idle(until):
        await asyncio.sleep(max(0.0, until - branch.run.clock.now()))
