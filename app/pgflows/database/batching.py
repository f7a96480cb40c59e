"""One statement for many callers.

What is pending when the last statement ends goes into the next one. An item that PostgreSQL
refuses is found by halving the batch, so that it fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from pgflows.database.faults import is_away

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_ITEMS = 200  # in one statement


async def in_halves(
    items: Sequence[Item],
    act: Callable[[Sequence[Item]], Awaitable[None]],
    refuse: Callable[[Item, Exception], None],
    spoiled: Callable[[Exception], bool],
) -> None:
    """Calls `act` with all items. If it raises an error for which `spoiled` is true, one of the
    items is to blame: the halves are tried, down to the item that `refuse` is told of.
    """
    try:
        await act(items)
    except Exception as e:
        if not spoiled(e):
            raise
        if len(items) == 1:
            refuse(items[0], e)
            return
        middle = len(items) // 2
        await in_halves(items[:middle], act, refuse, spoiled)
        await in_halves(items[middle:], act, refuse, spoiled)


class Batcher(Generic[Item, Answer]):
    """Calls `flush` with all items that came while its last call was under way."""

    def __init__(
        self, flush: Callable[[list[Item]], Awaitable[Sequence[Answer]]], most: int = MOST_ITEMS
    ) -> None:
        self._flush = flush
        self._most = most
        self._pending: list[_Entry[Item, Answer]] = []
        self._task: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Answer:
        """The answer to this item, or the error that refused it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[: self._most], self._pending[self._most :]
            try:
                await in_halves(batch, self._answer, _refuse, lambda e: not is_away(e))
            except Exception as e:  # the database went away: nobody in the batch has an answer
                for entry in batch:
                    _refuse(entry, e)
        self._task = None

    async def _answer(self, batch: Sequence[_Entry[Item, Answer]]) -> None:
        answers = await self._flush([item for item, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


_Entry = tuple[Item, asyncio.Future[Answer]]


def _refuse(entry: _Entry[Item, Answer], error: Exception) -> None:
    if not entry[1].done():
        entry[1].set_exception(error)
