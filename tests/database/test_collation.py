"""Nothing depends on the collation of the database."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pgflows.config import Settings
from pgflows.database.migrations import migrate
from pgflows.database.migrations.scripts import sql_directory
from tests.conftest import OWNER, RUN, RUN_PASSWORD
from tests.conftest import _dsn as dsn_of

DEPENDS = re.compile(r"\b(lower|upper|initcap)\s*\(|[!~]~?\*|\bilike\b", re.IGNORECASE)


@pytest.fixture
async def turkish(server_dsn: str, template: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A database where the small letter of I has no dot, migrated from nothing; as its owner."""
    admin = await asyncpg.connect(server_dsn)
    name = f"turkish_{os.getpid()}"
    await admin.execute(f"drop database if exists {name} with (force)")
    try:
        await admin.execute(
            f"create database {name} owner {OWNER} template template0 encoding 'UTF8' "
            "locale_provider icu icu_locale 'tr-TR' locale 'C'"
        )
    except asyncpg.FeatureNotSupportedError as e:
        await admin.close()
        pytest.skip(str(e))
    run_dsn = dsn_of(server_dsn, RUN, name, RUN_PASSWORD)
    await migrate(dsn_of(server_dsn, OWNER, name), Settings(run_dsn=run_dsn))
    conn = await asyncpg.connect(dsn_of(server_dsn, OWNER, name))
    yield conn
    await conn.close()
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_letters_have_their_usual_case_in_a_turkish_database(
    turkish: asyncpg.Connection[Any],
) -> None:
    assert await turkish.fetchval("select lower('PUBLIC')") == "publ\u0131c"
    await turkish.execute("select df.grant_usage('PUBLIC')")
    assert await turkish.fetchval("select df.wait_for_schedule('0 0 * * fri')")
    assert await turkish.fetchval("select df.wait_for_schedule('0 0 * * FRI')")
    assert "GET" in await turkish.fetchval("select df.http('HTTP://example.com/', 'get')")
    explained = await turkish.fetchval("select df.explain('INSERT INTO t VALUES (1)')")
    assert "INSERT INTO t" in explained
    instance = "0192F0C4-0000-7000-8000-00000000000A"
    with pytest.raises(asyncpg.PostgresError, match="there is no instance"):
        await turkish.execute("select pgflows.get_instance($1)", instance)


@pytest.mark.parametrize("folder", ["df", "functions"])
def test_every_change_of_case_names_its_collation(folder: str) -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in (sql_directory() / folder).glob("*.sql")
        for line in path.read_text("utf-8").splitlines()
        if DEPENDS.search(line.partition("--")[0]) and 'collate "C"' not in line
    ]
    assert found == []
