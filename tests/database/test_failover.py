"""The primary becomes a standby, or the database read-only, while a service and an engine run."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from tests.acceptance.conftest import EFFECTS
from tests.conftest import Process, Spawn, until

WRITABLE = "?target_session_attrs=read-write"


@pytest.fixture
def primary() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="pgflows-primary-") as name:
        server = EmbeddedServer(Path(name))
        dsn = server.start()
        try:
            asyncio.run(migrate(dsn, Settings(dsn=dsn)))
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
def standby(primary: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server that streams from the primary."""
    with tempfile.TemporaryDirectory(prefix="pgflows-standby-") as name:
        server = EmbeddedServer(Path(name))
        server.prepare()
        data = Path(name) / "data"
        access = Path(primary.socket_directory).parent / "data" / "pg_hba.conf"
        access.write_text(access.read_text() + "local replication all trust\n")
        primary._psql("select pg_reload_conf()")
        server._run(
            "pg_basebackup", "-D", str(data), "-h", str(primary.socket_directory),
            "-p", str(primary.port), "-U", "postgres", "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{server.socket_directory}'\n")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
async def admin(primary: EmbeddedServer) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(primary.socket_dsn("postgres"))
    yield conn
    await conn.close()


def serve(spawn: Spawn, dsn: str, effects: str) -> Process:
    return spawn(
        "serve", dsn=dsn, PGFLOWS_APP="tests.acceptance.deployment:app", EFFECTS_DSN=effects
    ).wait_until_ready(60)


async def start(http: httpx.AsyncClient, seconds: float = 0) -> httpx.Response:
    given = {"input": {"name": "run", "seconds": seconds}}
    return await http.post("/workflows/three/start?wait=10", json=given)


async def completed(http: httpx.AsyncClient) -> bool:
    answer = await start(http)
    return answer.status_code in (200, 201) and answer.json()["status"] == "completed"


async def assert_away(http: httpx.AsyncClient, what: str) -> None:
    """Starts are refused for now, and the service says that it is not ready."""

    async def refused() -> httpx.Response | None:
        answer = await start(http)
        assert answer.status_code in (200, 201, 202, 503), answer.text
        return answer if answer.status_code == 503 else None

    answer = await until(refused)
    assert int(answer.headers["retry-after"]) >= 1
    ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert what in ready.json()["detail"]


async def test_a_service_goes_on_with_the_standby_that_was_promoted(
    primary: EmbeddedServer, standby: EmbeddedServer, spawn: Spawn
) -> None:
    await _make_effects(primary)
    password = primary.dsn.rpartition("@")[0].rpartition(":")[2]
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    dsn = f"postgresql://pgflows:{password}@{hosts}/pgflows{WRITABLE}"
    service = serve(spawn, dsn, dsn)
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
        assert await completed(http)
        primary.stop("immediate")
        await assert_away(http, "away")
        standby._psql("select pg_promote()")
        await until(lambda: completed(http), 60, "a run on the new primary")
        assert (await http.get("/readyz")).status_code == 200
    assert "Traceback" not in service.output()


async def test_a_service_on_a_standby_is_not_ready_until_it_is_promoted(
    primary: EmbeddedServer, spawn: Spawn
) -> None:
    await _make_effects(primary)
    service = serve(spawn, primary.socket_dsn(), primary.socket_dsn())
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
        assert await completed(http)
        primary.stop()
        signal = primary.socket_directory.parent / "data" / "standby.signal"
        signal.touch()
        primary.start()
        await assert_away(http, "read-only")
        rotate = spawn("keys", "rotate", dsn=primary.socket_dsn())
        assert rotate.popen is not None
        assert await asyncio.to_thread(rotate.popen.wait, 20) == 1
        assert "read-only transaction" in rotate.output()
        assert len(rotate.output().splitlines()) == 1
        primary._psql("select pg_promote()")
        await until(lambda: completed(http), 60, "a run on the promoted server")
    assert "Traceback" not in service.output()


async def test_a_database_that_is_made_read_only_for_a_while_is_away_for_that_long(
    primary: EmbeddedServer, admin: asyncpg.Connection, spawn: Spawn
) -> None:
    await _make_effects(primary)
    service = serve(spawn, primary.socket_dsn(), primary.socket_dsn())
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
        assert await completed(http)
        await admin.execute("alter database pgflows set default_transaction_read_only = on")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = 'pgflows' and pid <> pg_backend_pid()"
        )
        await assert_away(http, "read-only")
        await admin.execute("alter database pgflows reset default_transaction_read_only")
        await until(lambda: completed(http), 60, "a run when the guard is gone")
        assert (await http.get("/readyz")).status_code == 200
    assert "Traceback" not in service.output()


async def _make_effects(server: EmbeddedServer) -> None:
    conn = await asyncpg.connect(server.socket_dsn())
    await conn.execute(EFFECTS)
    await conn.close()
