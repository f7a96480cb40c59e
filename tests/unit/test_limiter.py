"""Slots that are granted in turn: none is lost, none is granted twice."""

from __future__ import annotations

import asyncio

from pgflows.engine.limiter import FLOWS_SECONDS, Limiter


async def turns() -> None:
    """Lets every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_limiter_grants_slots_in_the_order_of_asking() -> None:
    limiter, order = Limiter(1), []

    async def pass_through(n: int) -> None:
        assert await limiter.enter()
        order.append(n)
        await asyncio.sleep(0)
        limiter.release()

    await asyncio.gather(*map(pass_through, range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert await limiter.enter()


async def test_limiter_lets_nobody_overtake_a_waiting_caller() -> None:
    limiter = Limiter(1)
    assert await limiter.enter()
    waiting = asyncio.create_task(limiter.enter())
    await turns()
    limiter.release()
    late = asyncio.create_task(limiter.enter())
    assert await waiting
    await turns()
    assert not late.done()
    limiter.release()
    assert await late


async def test_limiter_gives_up_after_its_seconds() -> None:
    limiter = Limiter(1, seconds=0.01)
    assert await limiter.enter()
    assert not await limiter.enter()
    limiter.release()
    assert await limiter.enter()


async def test_limiter_passes_an_abandoned_turn_on() -> None:
    limiter = Limiter(1)
    assert await limiter.enter()
    gone, given, last = [asyncio.create_task(limiter.enter()) for _ in range(3)]
    await turns()
    gone.cancel()
    limiter.release()  # before `gone` has heard that it was cancelled
    await turns()
    assert gone.cancelled()
    assert given.done()
    limiter.release()
    last.cancel()  # after its turn has come, and before it has heard of it
    await turns()
    assert last.cancelled()
    assert await asyncio.wait_for(limiter.enter(), 1)


async def test_limiter_is_crowded_while_many_wait_for_a_short_time() -> None:
    limiter = Limiter(1)
    assert await limiter.enter()
    waiting = [asyncio.create_task(limiter.enter()) for _ in range(3)]
    await turns()
    assert limiter.crowded(2)
    assert not limiter.crowded(3)
    await asyncio.sleep(FLOWS_SECONDS + 0.05)
    assert not limiter.crowded(2)
    for task in waiting:
        task.cancel()
