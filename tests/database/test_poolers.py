"""Through PgBouncer: all works in session mode, and one line says why nothing does in others."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from pgflows.cli.doctor import examine
from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from pgflows.database.pooler import check_pooler
from tests.acceptance.conftest import EFFECTS, Deployment
from tests.conftest import Spawn, free_port, until
from tests.database.conftest import OWNER, Server

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")

CONFIGURATION = """
[databases]
session = {server} pool_mode=session pool_size=40
transaction = {server} pool_mode=transaction
statement = {server} pool_mode=statement
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
"""


@dataclass(frozen=True)
class Pooler:
    """PgBouncer before database one; its databases are named by their mode."""

    port: int

    def dsn(self, mode: str, role: str = OWNER) -> str:
        return f"postgresql://{quote(role)}@127.0.0.1:{self.port}/{mode}"


@pytest.fixture
def pooler(started: EmbeddedServer, server: Server) -> Iterator[Pooler]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pgflows-pooler-") as name:
        directory = Path(name)
        at = f"host={started.socket_directory} port={started.port} dbname=one"
        text = CONFIGURATION.format(server=at, port=port, directory=directory)
        (directory / "pgbouncer.ini").write_text(text)
        (directory / "users").write_text(f'"{OWNER}" ""\n"pgflows_run" ""\n')
        owner = started.socket_directory.stat()  # root may not run PgBouncer
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        process = subprocess.Popen(
            [str(PROGRAM), "-q", str(directory / "pgbouncer.ini")],
            user=owner.st_uid,
            group=owner.st_gid,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Pooler(port)
        finally:
            process.kill()
            process.wait()


async def reached(pooler: Pooler) -> Pooler:
    """The pooler, once it listens."""

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", pooler.port)
        except OSError:
            return False
        writer.close()
        return True

    await until(listens, what="PgBouncer")
    return pooler


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgflows", *arguments], capture_output=True, text=True, timeout=60
    )


async def test_everything_works_through_a_pooler_in_session_mode(
    pooler: Pooler, server: Server, spawn: Spawn
) -> None:
    dsn = (await reached(pooler)).dsn("session")
    settings = Settings(run_dsn=pooler.dsn("session", "pgflows_run"))
    assert await migrate(dsn, settings)
    conn = await asyncpg.connect(server.dsn("one"))
    await conn.execute(EFFECTS)
    deployment = Deployment(spawn, dsn, conn, free_port())
    service = deployment._spawn("serve", PGFLOWS_RUN_DSN=str(settings.run_dsn)).wait_until_ready()
    instance = await deployment.start()
    assert await deployment.ended(instance) == "completed"
    await deployment.assert_recorded_once(instance)
    found = {f.what: f for f in await examine(dsn, settings)}
    assert not [f for f in found.values() if f.verdict == "broken"]
    assert "in session mode" in found["pooler"].found
    assert found["engine"].verdict == "ok"
    assert "Traceback" not in service.output()
    await conn.close()
    service.kill()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("name", ["migrate", "serve", "engine", "keys list", "doctor"])
async def test_command_refuses_a_pooler_that_gives_sessions_away(
    pooler: Pooler, mode: str, name: str
) -> None:
    await reached(pooler)
    done = await asyncio.to_thread(command, *name.split(), "--dsn", pooler.dsn(mode))
    assert done.returncode == 1
    said = (done.stdout + done.stderr).strip().splitlines()
    assert f"a pooler in {mode} mode" in said[0]
    assert "pool_mode=session" in said[0]
    assert len(said) <= 2


async def test_pooler_is_told_from_a_server(pooler: Pooler, server: Server) -> None:
    assert not await check_pooler(server.dsn("one"))
    assert await check_pooler((await reached(pooler)).dsn("session"))


async def test_pooler_is_found_out_while_other_clients_keep_its_sessions_busy(
    pooler: Pooler,
) -> None:
    dsn = (await reached(pooler)).dsn("transaction")
    others = [await asyncpg.connect(dsn, statement_cache_size=0) for _ in range(4)]
    for other in others:
        await other.execute("begin")
    for other in others:
        await other.execute("commit")
    with pytest.raises(Exception, match="a pooler in transaction mode"):
        await check_pooler(dsn)
    for other in others:
        await other.close()
