"""What goes wrong: processes, sessions, connections and the server itself, one by one or together.

The sequence of faults and the pauses between them come from a generator of their own, so a seed
repeats them whatever the runs do meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from pgflows.database.embedded import EmbeddedServer
from pgflows.database.faults import LOST
from tests.chaos.children import Child

AWAY = (*LOST, asyncpg.PostgresError, TimeoutError)
DONE = "select count(*) from df.nodes where status = 'completed'"
ANYBODY = (
    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
    "and backend_type = 'client backend' order by random() limit 1"
)


class Faults:
    def __init__(
        self,
        options: argparse.Namespace,
        children: Sequence[Child],
        server: EmbeddedServer,
        dsn: str,
    ) -> None:
        self._random = random.Random(options.seed)  # noqa: S311 - a repeatable sequence of faults
        self._options = options
        self._children = children
        self._server = server
        self._dsn = dsn
        self._tasks: list[asyncio.Task[None]] = []
        self._restarting = asyncio.Lock()
        self._under_way = 0
        self._over: float | None = None
        self.counts: dict[str, int] = {}
        self.recoveries: list[float] = []

    async def run(self) -> None:
        """Faults every few seconds (2 to 5 by default), many of them while the one before is not
        over or not recovered from; the server goes away every 5 to 40 seconds.
        """
        chance, every = self._random, self._options.every
        began = time.monotonic()
        restart = chance.uniform(0.2, 0.5) * min(self._options.seconds, 40)
        while True:
            await asyncio.sleep(chance.uniform(0.57, 1.43) * every)
            faults: list[Callable[[], Awaitable[None]]] = [
                chance.choice([self._kill, self._kill, self._pause, self._terminate, self._crowd])
            ]
            if time.monotonic() - began > restart:
                restart += chance.uniform(5, 40)
                faults.append(self._restart)
            elif chance.random() < 0.3:
                faults.append(chance.choice([self._kill, self._terminate]))
            for fault in faults:
                delay = chance.uniform(0, 1.5)
                self._tasks.append(asyncio.create_task(self._fault(fault, delay)))

    async def _fault(self, fault: Callable[[], Awaitable[None]], delay: float) -> None:
        await asyncio.sleep(delay)
        self._under_way += 1
        try:
            await fault()
        finally:
            self._under_way -= 1
            self._over = time.monotonic()

    async def watch(self) -> None:
        """Measures the time from the end of a fault to the next node that completes."""
        last: int | None = None
        while True:
            await asyncio.sleep(0.1)
            try:
                conn = await asyncpg.connect(self._dsn, timeout=2)
                try:
                    done = int(await conn.fetchval(DONE))
                finally:
                    conn.terminate()
            except AWAY:
                continue
            if self._under_way or self._over is None:
                last = None
            elif last is None:
                last = done
            elif done > last:
                self.recoveries.append(time.monotonic() - self._over)
                last, self._over = None, None

    def _note(self, fault: str) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + 1

    async def _kill(self) -> None:
        child = self._random.choice(self._children)
        self._note(f"SIGKILL {child.name}")
        await child.stop(signal.SIGKILL)
        await child.start()

    async def _pause(self) -> None:
        """An engine stands still, perhaps until others took its runs, then goes on."""
        child = self._random.choice(self._children[:2])
        seconds = self._random.uniform(1, 6)
        self._note(f"SIGSTOP {child.name}")
        child.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        child.send(signal.SIGCONT)

    async def _terminate(self) -> None:
        self._note("terminated session")
        with contextlib.suppress(*AWAY):
            conn = await asyncpg.connect(self._server.admin_dsn, timeout=5)
            await conn.execute(ANYBODY)
            await conn.close()

    async def _crowd(self) -> None:
        """Somebody else takes all connections that the server has left."""
        self._note("no connection left")
        crowd: list[asyncpg.Connection[asyncpg.Record]] = []
        with contextlib.suppress(*AWAY):
            while len(crowd) < 1000:
                crowd.append(await asyncpg.connect(self._dsn, timeout=5))
        await asyncio.sleep(self._random.uniform(0.5, 2))
        for conn in crowd:
            conn.terminate()

    async def _restart(self) -> None:
        mode = self._random.choice(["fast", "immediate"])
        seconds = self._random.uniform(0, 2)
        self._note(f"PostgreSQL {mode}")
        async with self._restarting:
            await asyncio.to_thread(self._server.stop, mode)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._server.start)

    async def end(self) -> None:
        """Lets the faults under way pass; then everybody may go on."""
        await asyncio.gather(*self._tasks)
        for child in self._children:
            child.send(signal.SIGCONT)
        async with self._restarting:
            await asyncio.to_thread(self._server.start)
        for child in self._children:
            await child.start()
