"""Places that are given out in turn: none is lost, none is given twice."""

from __future__ import annotations

import asyncio

from pgflows.engine.limiter import FLOWS_SECONDS, Gate


async def turns() -> None:
    """Lets every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_the_order_of_the_asking() -> None:
    gate, order = Gate(1), []

    async def pass_through(n: int) -> None:
        assert await gate.enter()
        order.append(n)
        await asyncio.sleep(0)
        gate.release()

    await asyncio.gather(*map(pass_through, range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert await gate.enter()


async def test_nobody_comes_before_those_who_wait() -> None:
    gate = Gate(1)
    assert await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turns()
    gate.release()
    late = asyncio.create_task(gate.enter())
    assert await waiting
    await turns()
    assert not late.done()
    gate.release()
    assert await late


async def test_who_waits_for_too_long_is_told() -> None:
    gate = Gate(1, seconds=0.01)
    assert await gate.enter()
    assert not await gate.enter()
    gate.release()
    assert await gate.enter()


async def test_a_turn_that_comes_to_somebody_who_left_is_the_next_ones() -> None:
    gate = Gate(1)
    assert await gate.enter()
    gone, given, last = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await turns()
    gone.cancel()
    gate.release()  # before `gone` has heard that it was cancelled
    await turns()
    assert gone.cancelled()
    assert given.done()
    gate.release()
    last.cancel()  # after its turn has come, and before it has heard of it
    await turns()
    assert last.cancelled()
    assert await asyncio.wait_for(gate.enter(), 1)


async def test_a_gate_is_crowded_while_many_wait_for_a_short_time() -> None:
    gate = Gate(1)
    assert await gate.enter()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await turns()
    assert gate.crowded(2)
    assert not gate.crowded(3)
    await asyncio.sleep(FLOWS_SECONDS + 0.05)
    assert not gate.crowded(2)
    for task in waiting:
        task.cancel()
