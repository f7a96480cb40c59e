"""Databases that were restored: without owners, under another name, beside other roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pgflows.cli.doctor import examine
from pgflows.config import Settings
from pgflows.database.migrations import migrate
from pgflows.errors import SetupError
from tests.acceptance.conftest import EFFECTS, Deployment
from tests.conftest import Process, Spawn, free_port, until
from tests.database.conftest import OWNER, Server, program, value

RIGHTS = "select kind || ' ' || object, owner, privileges from pgflows._rights() order by 1"
BARE = ("--no-owner", "--no-acl")


async def rights(dsn: str) -> list[tuple[object, ...]]:
    conn = await asyncpg.connect(dsn)
    try:
        return [tuple(r) for r in await conn.fetch(RIGHTS)]
    finally:
        await conn.close()


async def dump(server: Server, path: Path, *options: str) -> str:
    """A dump of database one, which was migrated."""
    await migrate(server.dsn("one"), Settings())
    file = str(path / "one.dump")
    await program("pg_dump", *options, "-f", file, server.dsn("one", "postgres"))
    return file


async def broken(dsn: str) -> dict[str, str]:
    return {f.what: f.found for f in await examine(dsn, Settings()) if f.verdict == "broken"}


async def test_restore_without_owners_and_privileges_is_repaired(
    server: Server, tmp_path: Path
) -> None:
    file = await dump(server, tmp_path, "-Fc")
    await program("pg_restore", "-e", *BARE, "-d", server.dsn("two"), file)
    assert await rights(server.dsn("two")) != await rights(server.dsn("one"))
    found = await broken(server.dsn("two"))
    assert "belongs to owner, not to pgflows_run" in found["rights"]
    [done] = await migrate(server.dsn("two"), Settings())
    assert done.startswith("owners and privileges of")
    assert await rights(server.dsn("two")) == await rights(server.dsn("one"))
    assert await migrate(server.dsn("two"), Settings()) == []
    assert await broken(server.dsn("two")) == {}
    key = "select key_id || secret::text from pgflows.signing_keys"
    assert await value(server.dsn("two"), key) == await value(server.dsn("one"), key)


async def test_restore_with_owners_and_privileges_needs_no_repair(
    server: Server, tmp_path: Path
) -> None:
    file = await dump(server, tmp_path, "-Fc")
    await program("pg_restore", "-e", "-d", server.dsn("two", "postgres"), file)
    assert await migrate(server.dsn("two"), Settings()) == []
    assert await rights(server.dsn("two")) == await rights(server.dsn("one"))


async def test_restore_keeps_the_password_of_a_run_role_that_is_made_anew(
    server: Server, tmp_path: Path
) -> None:
    file = await dump(server, tmp_path, "-Fc")
    kept = await value(server.dsn("one"), "select password from pgflows.run_login")
    await server.as_admin(
        "postgres",
        "drop database one with (force)",
        "drop role pgflows_run",
        f"create database one owner {OWNER}",
    )
    await program("pg_restore", "-e", *BARE, "-d", server.dsn("two"), file)
    assert await migrate(server.dsn("two"), Settings())
    url = f"postgresql://pgflows_run:{kept}@127.0.0.1:{server.embedded.port}/two"
    assert await value(url, "select current_user") == "pgflows_run"


async def test_restore_by_a_superuser_is_handed_over_by_the_statement_that_is_printed(
    server: Server, tmp_path: Path
) -> None:
    file = await dump(server, tmp_path, "-Fp", *BARE)
    await program("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", file, server.dsn("two", "postgres"))
    with pytest.raises(SetupError, match="belongs to another role than migrator: to postgres") as e:
        await migrate(server.dsn("two"), Settings())
    assert "owner" in await broken(server.dsn("two"))
    await server.as_admin("two", e.value.message[e.value.message.index("do $$") :])
    assert await migrate(server.dsn("two"), Settings())
    assert await rights(server.dsn("two")) == await rights(server.dsn("one"))


async def test_owner_of_the_schemas_alone_is_told_what_hands_over_the_rest(
    server: Server, tmp_path: Path
) -> None:
    file = await dump(server, tmp_path, "-Fp", *BARE)
    await program("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", file, server.dsn("two", "postgres"))
    await server.as_admin(
        "two", *(f"alter schema {name} owner to {OWNER}" for name in ("df", "pgflows"))
    )
    with pytest.raises(SetupError, match="belongs to another role than migrator: to postgres") as e:
        await migrate(server.dsn("two"), Settings())
    await server.as_admin("two", e.value.message[e.value.message.index("do $$") :])
    assert await migrate(server.dsn("two"), Settings())
    assert await rights(server.dsn("two")) == await rights(server.dsn("one"))


async def test_copy_by_template_needs_no_migration(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    await server.as_admin(
        "postgres", "drop database two", f"create database two template one owner {OWNER}"
    )
    assert await migrate(server.dsn("two"), Settings()) == []
    assert await rights(server.dsn("two")) == await rights(server.dsn("one"))


async def test_password_of_another_server_is_refused_with_what_sets_it(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    await server.as_admin(
        "postgres",
        f"alter role {OWNER} password 'secret'",
        "alter role pgflows_run password 'of another server'",
    )
    url = f"postgresql://{OWNER}:secret@127.0.0.1:{server.embedded.port}/one"
    with pytest.raises(SetupError, match="refuses the password of pgflows_run") as e:
        await migrate(url, Settings())
    await server.as_admin("one", e.value.message[e.value.message.index("do $$") :])
    assert await migrate(url, Settings()) == []


async def test_right_that_somebody_revoked_is_named_and_given_back(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    await server.as_admin("one", "revoke execute on function pgflows.take from pgflows_run")
    found = await broken(server.dsn("one"))
    assert "pgflows_run may not EXECUTE function pgflows.take" in found["rights"]
    assert await migrate(server.dsn("one"), Settings())
    assert await broken(server.dsn("one")) == {}


@pytest.fixture
async def flying(server: Server, spawn: Spawn) -> AsyncIterator[tuple[Deployment, Process, Any]]:
    """A deployment on database one whose only run is in its second step."""
    await migrate(server.dsn("one"), Settings())
    conn = await asyncpg.connect(server.dsn("one"))
    await conn.execute(EFFECTS)
    deployment = Deployment(spawn, server.dsn("one"), conn, free_port())
    service = deployment._spawn("serve").wait_until_ready()
    instance = await deployment.start(seconds=2)
    await until(lambda: deployment.effects(instance, "second#1"), what="the second step")
    yield deployment, service, instance
    await conn.close()


async def test_run_that_was_in_flight_at_the_dump_goes_on_after_the_restore(
    server: Server, flying: tuple[Deployment, Process, Any], tmp_path: Path
) -> None:
    before, service, instance = flying
    file = await dump(server, tmp_path, "-Fc")
    assert await before.ended(instance) == "completed"
    service.kill()
    await program("pg_restore", "-e", *BARE, "-d", server.dsn("two"), file)
    await migrate(server.dsn("two"), Settings())
    conn = await asyncpg.connect(server.dsn("two"))
    after = Deployment(before.spawn, server.dsn("two"), conn, before.port)
    assert await after.status(instance) in ("pending", "running")
    again = after._spawn("serve")
    assert await after.ended(instance) == "completed"
    assert await after.effects(instance, "first#1") == 1
    await conn.close()
    again.kill()
