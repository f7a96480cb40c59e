"""Bringing a database up to date: once, whoever else does it, or not at all."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pgflows.cli.doctor import Finding, examine
from pgflows.config import Settings
from pgflows.database.migrations import check_schema, migrate, print_sql, scripts
from pgflows.database.migrations.scripts import Script, read_scripts
from pgflows.errors import MigrationError, SetupError
from tests.database.conftest import OWNER, Server, value

NOTHING = "select to_regnamespace('pgflows') is null and to_regnamespace('df') is null"


async def test_a_fresh_database_is_migrated_by_an_ordinary_role(server: Server) -> None:
    applied = await migrate(server.dsn("one"), Settings())
    assert applied == [s.name for s in read_scripts()]
    assert await migrate(server.dsn("one"), Settings()) == []
    password = await value(server.dsn("one"), "select password from pgflows.run_login")
    assert len(str(password)) > 40
    url = f"postgresql://pgflows_run:{password}@127.0.0.1:{server.embedded.port}/one"
    assert await value(url, "select current_user") == "pgflows_run"
    assert await value(server.dsn("one"), "select count(*) from pgflows.signing_keys") == 1
    assert await value(server.dsn("one"), "select to_regnamespace('pgmq') is not null")


async def test_the_run_role_may_not_make_anything(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    conn = await asyncpg.connect(server.dsn("one", "pgflows_run"))
    for refused in (
        "create table pgflows.x ()",
        "create schema x",
        "select * from pgflows.run_login",
        "select * from pgflows.step_runs",
        "select pgflows.live_keys()",
        "set role migrator",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(refused)
    await conn.close()


async def test_eight_at_once_migrate_a_database_once(server: Server) -> None:
    done = await asyncio.gather(*(migrate(server.dsn("one"), Settings()) for _ in range(8)))
    assert sorted(len(d) for d in done) == [0] * 7 + [len(read_scripts())]


async def test_two_databases_of_a_server_are_migrated_at_once(server: Server) -> None:
    await asyncio.gather(*(migrate(server.dsn(n), Settings()) for n in ("one", "two") * 2))
    known = [
        await value(server.dsn(n), "select count(*) from pgflows.run_login") for n in ("one", "two")
    ]
    assert sorted(known) == [0, 1]  # type: ignore[type-var]  # both are counts


async def test_the_password_of_an_existing_run_role_must_be_known(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(server.dsn("one"), Settings())
    async with server.admin() as admin:
        await admin.execute(f"alter role {OWNER} password 'owner'")
    two = f"postgresql://{OWNER}:owner@127.0.0.1:{server.embedded.port}/two"
    with pytest.raises(SetupError, match=r"exists already.*PGFLOWS_RUN_DSN"):
        await migrate(two, Settings())
    assert await value(two, NOTHING)
    assert await migrate(two, Settings(run_dsn="postgresql://elsewhere"))


async def test_a_role_without_rights_gets_the_statements_for_a_dba(server: Server) -> None:
    async with server.admin() as admin:
        await admin.execute(f"alter role {OWNER} nocreaterole")
        await admin.execute("alter database one owner to postgres")
    with pytest.raises(SetupError) as e:
        await migrate(server.dsn("one"), Settings())
    assert await value(server.dsn("one"), NOTHING)
    assert "Nothing was changed" in e.value.message
    statements = [line for line in e.value.message.splitlines() if line.startswith("  ")]
    assert len(statements) == 4
    dba = await asyncpg.connect(server.dsn("one", "postgres"))
    for statement in statements:
        await dba.execute(statement)
    await dba.close()
    assert await migrate(server.dsn("one"), Settings())
    assert await value(server.dsn("one"), "select count(*) from pgflows.run_login") == 0


async def test_a_run_role_of_others_must_be_granted(server: Server) -> None:
    async with server.admin() as admin:
        await admin.execute(f"alter role {OWNER} nocreaterole")
        await admin.execute("create role pgflows_run login")
    with pytest.raises(SetupError, match='grant pgflows_run to "migrator"'):
        await migrate(server.dsn("one"), Settings())
    async with server.admin() as admin:
        await admin.execute(f"grant pgflows_run to {OWNER} with admin option")
    assert await migrate(server.dsn("one"), Settings())


async def test_schemas_of_another_role_are_left_alone(server: Server) -> None:
    admin = await asyncpg.connect(server.dsn("one", "postgres"))
    await admin.execute("create schema df")
    await admin.close()
    with pytest.raises(SetupError, match="schema df of this database belongs to another role"):
        await migrate(server.dsn("one"), Settings())


async def test_another_role_is_told_whose_database_it_is(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    async with server.admin() as admin:
        await admin.execute("create role stranger login")
    try:
        dsn = server.dsn("one", "stranger")
        with pytest.raises(SetupError, match="belongs to another role than stranger"):
            await migrate(dsn, Settings())
        found = await findings(dsn)
        assert found["owner"].verdict == "broken"
        assert "another role than stranger" in found["owner"].found
    finally:
        async with server.admin() as admin:
            await admin.execute("drop role stranger")


async def findings(dsn: str) -> dict[str, Finding]:
    return {f.what: f for f in await examine(dsn, Settings())}


async def test_the_doctor_says_before_the_migration_what_it_will_lack(server: Server) -> None:
    before = await findings(server.dsn("one"))
    assert (before["role"].verdict, before["migrations"].verdict) == ("ok", "broken")
    async with server.admin() as admin:
        await admin.execute(f"alter role {OWNER} nocreaterole")
    found = await findings(server.dsn("one"))
    assert found["role"].verdict == "broken"
    assert 'grant pgflows_run to "migrator";' in found["role"].advice
    assert not [what for what in found if what.startswith("login")]


async def test_an_edited_migration_is_refused_by_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(server.dsn("one"), Settings())
    edited = [
        Script(s.name, s.text + ("-- edited" if s.number == 2 else ""), s.number)
        for s in read_scripts()
    ]
    monkeypatch.setattr(scripts, "read_scripts", lambda: edited)
    with pytest.raises(MigrationError, match=r"migrations/0002_tables.sql was edited"):
        await migrate(server.dsn("one"), Settings())


async def test_a_newer_database_is_refused_by_name(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    await value(
        server.dsn("one"),
        "insert into pgflows.migrations values ('migrations/0099_later.sql', 99, 'x')",
    )
    with pytest.raises(MigrationError, match=r"newer than this version.*0099_later"):
        await migrate(server.dsn("one"), Settings())
    conn = await asyncpg.connect(server.dsn("one"))
    with pytest.raises(MigrationError, match="newer"):
        await check_schema(conn)
    await conn.close()


async def test_a_changed_function_is_applied_and_keeps_its_grants(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(server.dsn("one"), Settings())
    key = await value(server.dsn("one"), "select key_id from pgflows.signing_keys")
    conn = await asyncpg.connect(server.dsn("one"))
    await conn.execute("set role pgflows_run")
    await conn.execute("grant execute on function pgflows.start to pg_monitor")
    await conn.close()
    changed = [
        Script(s.name, s.text + ("" if s.number else "\n-- changed"), s.number)
        for s in read_scripts()
    ]
    monkeypatch.setattr(scripts, "read_scripts", lambda: changed)
    applied = await migrate(server.dsn("one"), Settings())
    assert applied == [s.name for s in changed if not s.number]
    assert await migrate(server.dsn("one"), Settings()) == []
    assert await value(server.dsn("one"), "select key_id from pgflows.signing_keys") == key
    assert await value(
        server.dsn("one"),
        "select has_function_privilege('pg_monitor', 'pgflows.start(text,jsonb,text,text,jsonb)', "
        "'execute')",
    )


async def test_a_script_that_fails_leaves_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*read_scripts(), Script("functions/99_broken.sql", "select 1 / 0", 0)]
    monkeypatch.setattr(scripts, "read_scripts", lambda: broken)
    with pytest.raises(MigrationError, match=r"functions/99_broken.sql failed: division by zero"):
        await migrate(server.dsn("one"), Settings())
    assert await value(server.dsn("one"), NOTHING)
    assert (
        await value(
            server.dsn("one"), "select count(*) from pg_roles where rolname = 'pgflows_run'"
        )
        == 0
    )


async def test_the_printed_sql_migrates_too(server: Server) -> None:
    async with server.admin() as admin:
        await admin.execute("create role pgflows_run login")
        await admin.execute(f"grant pgflows_run to {OWNER}")
    conn = await asyncpg.connect(server.dsn("one"))
    await conn.execute(print_sql())
    await check_schema(conn)
    await conn.close()
    assert await migrate(server.dsn("one"), Settings()) == []


async def test_what_is_not_migrated_says_so(server: Server) -> None:
    conn = await asyncpg.connect(server.dsn("one"))
    with pytest.raises(MigrationError, match="run `pgflows migrate`"):
        await check_schema(conn)
    await conn.close()


async def test_database_that_lacks_a_script_is_to_be_migrated(
    owner: asyncpg.Connection[asyncpg.Record],
) -> None:
    await owner.execute("delete from pgflows.migrations where name = 'functions/60_ledger.sql'")
    with pytest.raises(MigrationError, match=r"this database lacks .*: run `pgflows migrate`"):
        await check_schema(owner)
