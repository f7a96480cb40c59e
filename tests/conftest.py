"""A real PostgreSQL, a migrated template in it, and a database of its own for each test.

The server is the embedded one unless the environment names another:

- PGFLOWS_TEST_DSN: a superuser's connection string, for a server that runs already
- PGFLOWS_TEST_PG_BIN: the bin directory of another version to start

PGFLOWS_TEST_EXTENSION_DSN turns on the tests that need the extension pg_durable: a superuser's
connection string for the database that the extension's worker serves, of a build that may call
127.0.0.1. Tests empty that database of pgflows, so it must hold nothing else, and roles must be
able to log in there without a password.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate

for _name in [n for n in os.environ if n.startswith("PGFLOWS_") and "_TEST_" not in n]:
    del os.environ[_name]

OWNER, RUN = "pgflows_tests", "pgflows_run"
RUN_PASSWORD = "run-tests"  # noqa: S105 - of a server that lives as long as the tests
EXTENSION_DSN = os.environ.get("PGFLOWS_TEST_EXTENSION_DSN")
# the database is one for all, so one process runs these tests
ON_THE_EXTENSION = (
    pytest.mark.skipif(not EXTENSION_DSN, reason="PGFLOWS_TEST_EXTENSION_DSN names no server"),
    pytest.mark.xdist_group("extension"),
    pytest.mark.slow,
)
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}


@dataclass(frozen=True)
class Database:
    """One test's database, as its roles reach it."""

    name: str
    dsn: str
    run_dsn: str
    admin_dsn: str

    def as_role(self, role: str) -> str:
        return _dsn(self.admin_dsn, role, self.name)


def _dsn(admin: str, role: str, database: str, password: str | None = None) -> str:
    url = urlsplit(admin)
    host = url.netloc.rpartition("@")[2]
    user = quote(role) + (f":{quote(password)}" if password else "")
    return urlunsplit(url._replace(netloc=f"{user}@{host}", path=f"/{database}"))


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A superuser's connection string. Every role may log in from here without a password."""
    given = os.environ.get("PGFLOWS_TEST_DSN")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="pgflows-tests-") as directory:
        binaries = os.environ.get("PGFLOWS_TEST_PG_BIN")
        server = EmbeddedServer(
            Path(directory), binaries=Path(binaries) if binaries else None, options=FAST
        )
        server.start()
        try:
            yield server.admin_dsn
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def template(server_dsn: str, worker_id: str) -> str:
    """The name of a migrated database that nobody is connected to."""
    name = f"template_{worker_id}"

    async def make() -> None:
        conn = await asyncpg.connect(server_dsn)
        for role, options in ((OWNER, "createrole"), (RUN, f"password '{RUN_PASSWORD}'")):
            await conn.execute(
                f"do $$ begin if not exists (select from pg_roles where rolname = '{role}') then "
                f"create role {role} login {options}; end if; "
                "exception when duplicate_object or unique_violation then null; end $$"
            )
        await conn.execute(f"grant {RUN} to {OWNER}")
        await conn.execute(f"drop database if exists {name} with (force)")
        await conn.execute(f"create database {name} owner {OWNER}")
        await conn.close()
        run_dsn = _dsn(server_dsn, RUN, name, RUN_PASSWORD)
        await migrate(_dsn(server_dsn, OWNER, name), Settings(run_dsn=run_dsn))

    asyncio.run(make())
    return name


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """The xdist worker, or main."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


_numbers = iter(range(1_000_000))


@pytest.fixture
async def database(server_dsn: str, template: str) -> AsyncIterator[Database]:
    """A migrated database of this test's own."""
    name = f"t_{os.getpid()}_{next(_numbers)}"
    conn = await asyncpg.connect(server_dsn)
    await conn.execute(f"create database {name} template {template} owner {OWNER}")
    try:
        yield Database(
            name,
            _dsn(server_dsn, OWNER, name),
            _dsn(server_dsn, RUN, name, RUN_PASSWORD),
            _dsn(server_dsn, "postgres", name),
        )
    finally:
        await conn.execute(f"drop database {name} with (force)")
        await conn.close()


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as the owner, JSON as text."""
    conn = await asyncpg.connect(database.dsn)
    yield conn
    await conn.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Process:
    """A pgflows process under test."""

    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    port: int
    popen: subprocess.Popen[bytes] | None = None
    crashes: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **environment: str) -> Process:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "pgflows", *self.command],
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        return self

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.popen is not None
        self.popen.send_signal(how)
        self.popen.wait(20)

    def wait_for_crash(self, seconds: float = 20) -> None:
        """Returns when the process killed itself at its crash point."""
        assert self.popen is not None
        code = self.popen.wait(seconds)
        assert code == -signal.SIGKILL, f"ended with {code}:\n{self.output()}"
        self.crashes.append(code)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds: float = 60) -> Process:
        deadline = time.monotonic() + seconds
        while True:
            assert self.popen is not None
            assert self.popen.poll() is None, f"it ended at once:\n{self.output()}"
            try:
                if httpx.get(f"{self.url}/healthz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"not ready in time:\n{self.output()}"
            time.sleep(0.05)


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spawn]:
    """Starts `pgflows …` as a process; killed at the end. spawn("serve", dsn=…, KEY=value)."""
    made: list[Process] = []

    def start(
        *command: str, dsn: str | None = None, port: int | None = None, **env: str
    ) -> Process:
        port = port or free_port()
        environment = os.environ | {"PGFLOWS_PORT": str(port), "PYTHONUNBUFFERED": "1"} | env
        if dsn:
            environment["PGFLOWS_DSN"] = dsn
        log = tmp_path / f"{len(made)}-{command[0]}.log"
        process = Process(command, environment, log, port)
        made.append(process)
        return process.start()

    yield start
    for process in made:
        if process.popen is not None and process.popen.poll() is None:
            process.kill()


async def until(check: Callable[[], Any], seconds: float = 20, what: str = "the condition") -> Any:
    """Waits until `check` (a coroutine function) gives something true; gives it back."""
    deadline = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        await asyncio.sleep(0.02)
