"""pgflows processes that are started again whenever they end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from pathlib import Path

READY = re.compile(r"^pgflows is at |: engine [0-9a-f-]{36} runs$", re.M)


class Child:
    """A pgflows process that is started again whenever it was killed."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self._turn = asyncio.Lock()
        self._from = 0
        self.process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Starts the process unless it runs."""
        async with self._turn:
            if self.running:
                return
            with self._log.open("ab") as log:
                self._from = log.tell()
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "pgflows",
                    *self._command,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )

    def send(self, what: signal.Signals) -> None:
        if self.process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(what)

    async def ready(self) -> None:
        """Returns when the process, started again if it must be, has said that it is at work."""
        while not (self.running and READY.search(self._said())):  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.05)

    async def stop(self, how: signal.Signals) -> int | None:
        """Ends the process; its exit code, if it ran."""
        process = self.process
        if process is None or process.returncode is not None:
            return None
        self.send(how)
        return await process.wait()

    async def keep(self) -> None:
        """Starts the process again when it ended by itself (the database was away at its start)."""
        while True:
            await asyncio.sleep(0.3)
            await self.start()

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def _said(self) -> str:
        return self._log.read_bytes()[self._from :].decode(errors="replace")
