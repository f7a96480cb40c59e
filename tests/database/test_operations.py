"""The recipes of docs/operations.md, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pgflows.cli.doctor import server as server_checks
from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from tests.acceptance.conftest import EFFECTS, Deployment
from tests.conftest import FAST, Spawn, free_port, until
from tests.database.conftest import Server, binaries, program, value
from tests.extension.stand_in import install
from tests.repository.snippets import recipes

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
OWNER = "pgflows"  # as the page calls it
LIMITS = re.compile(
    r"\(10\), and (\d+) more.*\n\| an engine \| (\d+), and 1 more .* \| (\d+) as `pgf"
)


@pytest.fixture
async def bare(started: EmbeddedServer) -> AsyncIterator[Server]:
    """A server without any role or database of pgflows."""
    server = Server(started)
    await server.as_admin("postgres", "drop database if exists pgflows with (force)")
    await server.as_admin("postgres", "drop role if exists pgflows")
    yield server
    await server.as_admin("postgres", "drop database if exists pgflows with (force)")
    await server.as_admin("postgres", "drop role if exists my_application, pgflows_run, pgflows")


async def by_superuser(server: Server, text: str, database: str = "postgres") -> None:
    """Runs statements one by one, as psql does."""
    for statement in re.split(r";\n", text):
        if statement.strip():
            await server.as_admin(database, statement)


async def shell(text: str, within: Path, **environment: str) -> str:
    path = f"{binaries()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euc", text],
        cwd=within,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def deployed(server: Server, spawn: Spawn, port: int | None = None) -> Deployment:
    dsn = server.dsn("pgflows", OWNER)
    conn = await asyncpg.connect(dsn)
    return Deployment(spawn, dsn, conn, port or free_port())


async def make(server: Server, within: Path) -> None:
    [text] = recipes("docs/operations.md", "## A database", "sql")
    await by_superuser(server, text)
    [text] = recipes("docs/operations.md", "## A database", "sh")
    found = await shell(text, within, PGFLOWS_DSN=server.dsn("pgflows", OWNER))
    assert "broken" not in found


async def test_page_backs_up_and_restores_on_a_server_without_the_roles(
    bare: Server, spawn: Spawn, tmp_path: Path
) -> None:
    dsn = bare.dsn("pgflows", OWNER)
    await make(bare, tmp_path)
    before = await deployed(bare, spawn)
    await before.conn.execute(EFFECTS)
    service = before._spawn("serve").wait_until_ready()
    instance = await before.start(seconds=2)
    await until(lambda: before.effects(instance, "second#1"), what="the second step")
    [back_up] = recipes("docs/operations.md", "## Back-up", "sh")
    await shell(back_up, tmp_path, PGFLOWS_DSN=dsn)
    await before.conn.close()
    service.kill()
    await bare.as_admin("postgres", "drop database pgflows with (force)")
    await bare.as_admin("postgres", "drop role pgflows_run, pgflows")

    roles, password, let_in = recipes("docs/operations.md", "## Restore", "sql")
    restore, migrating = recipes("docs/operations.md", "## Restore", "sh")
    await by_superuser(bare, roles)
    await shell(restore, tmp_path, PGFLOWS_DSN=dsn)
    await bare.as_admin("pgflows", password)
    said = await shell(migrating, tmp_path, PGFLOWS_DSN=dsn)
    assert "applied owners and privileges of" in said
    await bare.as_admin("pgflows", "create role my_application login")
    await bare.as_admin("pgflows", *let_in.split("\n")[:2])
    after = await deployed(bare, spawn, before.port)
    service = after._spawn("serve").wait_until_ready()
    assert await after.ended(instance) == "completed"
    assert await after.effects(instance, "first#1") == 1
    await value(
        bare.dsn("pgflows", "my_application"),
        """select pgflows.start('three', '{"name": "mine", "seconds": 0}')""",
    )
    await after.conn.close()
    service.kill()


async def test_copy_that_the_page_cuts_off_does_not_call_the_production_service(
    bare: Server, spawn: Spawn, tmp_path: Path
) -> None:
    await make(bare, tmp_path)
    production = await deployed(bare, spawn)
    await production.conn.execute(EFFECTS)
    service = production.service()
    instance = await production.start()  # no engine is there yet
    await program("pg_dump", "-Fc", "-f", str(tmp_path / "copy"), production.dsn)
    async with bare.admin() as admin:
        await admin.execute(f"create database copy owner {OWNER}")
    try:
        dsn = bare.dsn("copy", OWNER)
        await program(
            "pg_restore", "-e", "--no-owner", "--no-acl", "-d", dsn, str(tmp_path / "copy")
        )
        await migrate(dsn, Settings())
        [cut] = recipes("docs/operations.md", "### A copy that must leave production alone", "sql")
        for statement in cut.strip().split("\n"):
            await value(dsn, statement)
        conn = await asyncpg.connect(dsn)
        copy = Deployment(spawn, dsn, conn, free_port())
        engine = copy.engine()
        assert await copy.ended(instance) == "failed"
        error = "select error ->> 'message' from pgflows.instances where instance_id = $1"
        assert str(await conn.fetchval(error, instance)).startswith("Blocked: ")
        assert await production.effects(instance) == 0
        engine.kill()
        await conn.close()
    finally:
        service.kill()
        await production.conn.close()
        async with bare.admin() as admin:
            await admin.execute("drop database copy with (force)")


async def test_upgrade_of_the_page_is_migrate_and_doctor(bare: Server, tmp_path: Path) -> None:
    await make(bare, tmp_path)
    [text] = recipes("docs/operations.md", "## Upgrade", "sh")
    said = await shell(text, tmp_path, PGFLOWS_DSN=bare.dsn("pgflows", OWNER))
    assert "the database is up to date" in said


async def test_processes_open_no_more_sessions_than_the_page_says(
    bare: Server, spawn: Spawn, tmp_path: Path
) -> None:
    match = LIMITS.search(PAGE)
    assert match
    more, owners, runs = map(int, match.groups())
    assert more == server_checks.SERVICE_CONNECTIONS
    assert owners + runs + 10 == server_checks.ENGINE_CONNECTIONS
    await make(bare, tmp_path)
    deployment = await deployed(bare, spawn)
    await deployment.conn.execute(EFFECTS)
    service = deployment._spawn("serve", PGFLOWS_POOL_SIZE="4").wait_until_ready()
    started = [await deployment.start() for _ in range(50)]
    for instance in started:
        assert await deployment.ended(instance) == "completed"
    seen: list[Any] = await deployment.conn.fetch(
        "select usename, count(*) as n from pg_stat_activity "
        "where application_name ~ '^pgflows' and datname = 'pgflows' group by 1"
    )
    counts = {r["usename"]: r["n"] for r in seen}
    assert counts[OWNER] <= 4 + more + owners
    assert counts["pgflows_run"] <= runs + 10
    service.kill()
    await deployment.conn.close()


async def test_page_lets_the_owner_in_beside_the_extension_and_moves_runs_there(
    bare: Server, spawn: Spawn, tmp_path: Path
) -> None:
    await make(bare, tmp_path)
    dsn = bare.dsn("pgflows", OWNER)
    deployment = await deployed(bare, spawn)
    deployment.service().kill()
    instance = await deployment.start()
    let_in, move = recipes("docs/operations.md", "## Beside the extension pg_durable", "sql")
    drop, create, again = move.strip().split("\n")
    assert create == "create extension pg_durable;"
    await bare.as_admin("pgflows", drop)
    await install(bare.dsn("pgflows", "postgres"))
    await bare.as_admin("pgflows", again)
    await by_superuser(bare, let_in, "pgflows")
    assert await migrate(dsn, Settings())
    pending = "select status from df.instances order by created_at desc limit 1"
    assert await value(bare.dsn("pgflows", "postgres"), pending) == "pending"
    starts = "select count(*) from pgflows.df_runs where instance_id = $1"
    assert await deployment.conn.fetchval(starts, instance) == 2
    await deployment.conn.close()


@pytest.mark.slow
async def test_service_follows_a_promoted_standby_by_the_address_of_the_page(
    spawn: Spawn, tmp_path: Path
) -> None:
    primary = EmbeddedServer(tmp_path / "primary", binaries=binaries(), options=FAST)
    primary.start()
    standby = EmbeddedServer(tmp_path / "standby", binaries=binaries(), options=FAST)
    service = None
    try:
        await migrate(primary.socket_dsn(), Settings())
        conn = await asyncpg.connect(primary.socket_dsn())
        await conn.execute(EFFECTS)
        await conn.close()
        await stand_by(primary, standby)
        hosts = {"PRIMARY": f"127.0.0.1:{primary.port}", "STANDBY": f"127.0.0.1:{standby.port}"}
        [text] = recipes("docs/operations.md", "## Failover", "sh")
        text = text.replace("//pgflows@", f"//pgflows:{primary.dsn.split(':')[2].split('@')[0]}@")
        await shell(text, tmp_path, **hosts)
        dsn = (await shell(f"{text}\necho $PGFLOWS_DSN", tmp_path, **hosts)).splitlines()[-1]
        alone = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "pgflows", "doctor", "--dsn", standby.socket_dsn()],
            capture_output=True,
            text=True,
        )
        assert alone.returncode == 1
        assert "a standby, which cannot be written to" in alone.stdout
        deployment = Deployment(spawn, dsn, None, free_port())  # type: ignore[arg-type] # no session yet
        service = deployment._spawn("serve").wait_until_ready()
        primary.stop("immediate")
        admin = await asyncpg.connect(standby.admin_dsn)
        await admin.execute("select pg_promote()")
        await admin.close()
        deployment.conn = await asyncpg.connect(standby.socket_dsn())
        instance = await deployment.start()
        assert await deployment.ended(instance, 40) == "completed"
        await deployment.conn.close()
    finally:
        if service:
            service.kill()
        primary.stop("immediate")
        standby.stop("immediate")


def allow_replication(hba: Path) -> None:
    with hba.open("a") as file:
        file.write("local replication all trust\n")


async def stand_by(primary: EmbeddedServer, standby: EmbeddedServer) -> None:
    """Makes a standby of the primary, in a directory where an embedded server would be."""
    standby.prepare()
    admin = await asyncpg.connect(primary.admin_dsn)
    await asyncio.to_thread(allow_replication, Path(await admin.fetchval("show hba_file")))
    await admin.execute("select pg_reload_conf()")
    await admin.close()
    primary._programs.run(
        "pg_basebackup", "-D", "data", "-R", "-c", "fast", "-d", primary.admin_dsn,
        account=standby._account, within=standby._directory,
    )  # fmt: skip
    (standby._directory / "secrets.json").write_bytes(
        (primary._directory / "secrets.json").read_bytes()
    )
    standby._launch()


def test_pool_of_the_page_is_large_enough_for_a_service_with_an_engine() -> None:
    [text] = recipes("docs/operations.md", "## Poolers", "ini")
    assert "pool_mode=session" in text
    size = int(text.split("pool_size=")[1])
    assert size >= 10 + server_checks.SERVICE_CONNECTIONS + server_checks.ENGINE_CONNECTIONS
