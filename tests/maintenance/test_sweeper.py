"""What becomes of a run in the extension's `df` is taken over by pgflows.instances."""

from __future__ import annotations

import pytest

from pgflows.database.connections import connect
from tests.maintenance.conftest import Beside

CANCEL = "select pgflows.cancel_instance($1, 'enough')"
STATUS = "select status from df.instances where id = $1"


@pytest.mark.parametrize("status", ["running", "completed", "cancelled"])
async def test_sweep_copies_a_status(beside: Beside, status: str) -> None:
    run = await beside.start()
    await beside.end(run, status)
    assert await beside.sweep() == 1
    assert (await beside.state(run))[0] == status
    assert await beside.sweep() == 0


async def test_sweep_leaves_a_row_that_somebody_holds_for_the_next_time(beside: Beside) -> None:
    run = await beside.start()
    await beside.end(run, "running")
    other = await connect(beside.database.dsn)
    async with other.transaction():
        await other.execute("select from pgflows.instances for update")
        assert await beside.sweep() == 0
    assert await beside.sweep() == 1
    await other.close()


async def test_sweep_tells_the_orchestrator_of_a_cancel_that_was_committed(beside: Beside) -> None:
    run, undone = await beside.start(), await beside.start()
    tx = beside.owner.transaction()
    await tx.start()
    await beside.owner.execute(CANCEL, str(undone.instance_id))
    await tx.rollback()
    await beside.owner.execute(CANCEL, str(run.instance_id))
    assert await beside.owner.fetchval(STATUS, run.df_id) == "pending"
    assert await beside.sweep() == 1
    assert await beside.owner.fetchval(STATUS, run.df_id) == "cancelled"
    assert await beside.owner.fetchval(STATUS, undone.df_id) == "pending"
    assert await beside.state(run) == ("cancelled", {"type": "Cancelled", "message": "enough"})


async def test_sweep_ends_a_run_that_another_has_replaced(beside: Beside) -> None:
    run = await beside.start()
    await beside.owner.execute("update pgflows.df_runs set started_at = now() - interval '1 min'")
    assert await beside.judge(run, "not found after 5s") == "started again"
    await beside.sweep()
    statuses = [await beside.owner.fetchval(STATUS, df_id) for df_id, _ in await beside.runs(run)]
    assert statuses == ["cancelled", "pending"]
