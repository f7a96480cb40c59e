"""The signals of one run: those that were raised and not used up, and the nodes that wait."""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque

from pgflows.engine.mail import Letter, Mail
from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import Result
from pgflows.engine.walk.branch import Branch
from pgflows.engine.walk.timers import DEADLINE

FOREVER = math.inf
LONGEST_WAIT_SECONDS = 3600.0  # asyncio's timers cannot be set to any time


class Signals:
    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        self._raised: dict[str, deque[tuple[int, str]]] = {}
        self._known: set[int] = set()
        self._arrived = asyncio.Event()

    def deliver(self, letters: list[Letter]) -> None:
        """Oldest first; those that were delivered before are passed over."""
        for number, name, data in letters:
            if number not in self._known:
                self._known.add(number)
                self._raised.setdefault(name, deque()).append((number, data))
        self._arrived.set()

    def raised(self, name: str) -> bool:
        """Whether a signal of this name is here that no node has taken yet."""
        return bool(self._raised.get(name))

    async def wait_for(self, node: Node, branch: Branch) -> Result:
        name, key, clock = node.spec["signal_name"], branch.key(node), branch.run.clock
        timeout = node.spec.get("timeout_seconds")
        until = branch.recall(DEADLINE, key)
        if until is None:
            until = FOREVER if timeout is None else clock.now() + timeout
            if timeout is not None:
                branch.remember(DEADLINE, key, until)
        await branch.flush()
        self._mail.ask(branch.run.instance)
        with branch.waiting(node), branch.idle(until, name):
            signal = await self._receive(name, until, branch)
        branch.remember(DEADLINE, key, None)
        number, data = signal or (None, "null")
        result = Result(
            f'{{"signal_name":{json.dumps(name)},"timed_out":{json.dumps(signal is None)},'
            f'"data":{data}}}'
        )
        branch.record(node.completes, "completed", result, () if number is None else (number,))
        return result

    async def _receive(self, name: str, until: float, branch: Branch) -> tuple[int, str] | None:
        """The number and data of the oldest signal of this name; None at the deadline."""
        while True:
            raised = self._raised.get(name)
            if raised:
                return raised.popleft()
            left = until - branch.run.clock.now()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left, LONGEST_WAIT_SECONDS)):
                    await self._arrived.wait()
            except TimeoutError:
                continue
