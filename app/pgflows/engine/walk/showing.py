"""What the database gets to see of a run while something in it takes long."""

from __future__ import annotations

import asyncio
import time

from pgflows.engine.walk.branch import RunState
from pgflows.engine.write.checkpoint import Ending, Entry, State, Write

PARK_SECONDS = 3.0  # a run leaves memory for waits that are longer than this


def overdue(run: RunState, age: float) -> list[Entry]:
    """What is older than `age` seconds: nodes that run unseen, results that nothing took along.

    The caller submits the entries; a branch goes on only when its own has landed.
    """
    now = time.monotonic()
    entries = []
    for branch in run.branches:
        entry = Entry(run.instance, run.token)
        if branch.node is not None and now - branch.node_since > age:
            _show(entry, branch.unseen())
        if branch.writes and now - branch.since > age:
            entry.writes, branch.writes = branch.writes + entry.writes, []
            entry.state = run.resume.apply(branch.changes)
        if entry.writes:
            entry.done = branch.flushing = asyncio.get_running_loop().create_future()
            entries.append(entry)
    return entries


def parked(run: RunState) -> Entry | None:
    """The entry that lets the run leave memory, if nothing but time or signals can move it on."""
    active = [b for b in run.branches if not b.arms]
    ends = [b.idle_until for b in active]
    if not active or any(e is None or e - run.clock.now() < PARK_SECONDS for e in ends):
        return None
    if any(b.flushing is not None and not b.flushing.done() for b in active):
        return None
    entry = Entry(run.instance, run.token)
    for branch in active:
        _show(entry, branch.unseen())
        entry.writes[:0], branch.writes = branch.writes, []
        run.resume.apply(branch.changes)
    state = run.resume.snapshot()
    entry.state = State(
        state.number,
        state.text,
        wake_at=min(e for e in ends if e is not None),
        signals=tuple(b.idle_signal for b in active if b.idle_signal),
    )
    return entry


def _show(entry: Entry, running: list[Write]) -> None:
    if running:
        entry.writes.extend(running)
        entry.ending = Ending("running")
