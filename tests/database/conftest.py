"""A PostgreSQL server on which nothing of pgflows exists, and the programs that belong to it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from pgflows.database.embedded import EmbeddedServer

OWNER = "migrator"


@dataclass(frozen=True)
class Server:
    """A server on which nothing of pgflows exists but what the test makes."""

    embedded: EmbeddedServer

    def dsn(self, database: str, role: str = OWNER) -> str:
        return self.embedded.socket_dsn(role, database)

    async def as_admin(self, database: str, *statements: str) -> None:
        """Runs statements as a superuser."""
        conn = await asyncpg.connect(self.dsn(database, "postgres"))
        try:
            for statement in statements:
                await conn.execute(statement)
        finally:
            await conn.close()

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        conn = await asyncpg.connect(self.embedded.admin_dsn)
        try:
            yield conn
        finally:
            await conn.close()


@pytest.fixture(scope="module")
def started() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="pgflows-tests-") as directory:
        server = EmbeddedServer(
            Path(directory),
            binaries=binaries(),
            options={"fsync": "off", "full_page_writes": "off"},
        )
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
async def server(started: EmbeddedServer) -> AsyncIterator[Server]:
    """Databases one and two, owned by a role that may make roles."""
    server = Server(started)
    async with server.admin() as admin:
        await admin.execute(f"create role {OWNER} login createrole")
        for name in ("one", "two"):
            await admin.execute(f"create database {name} owner {OWNER}")
    yield server
    async with server.admin() as admin:
        for name in ("one", "two"):
            await admin.execute(f"drop database {name} with (force)")
        await admin.execute("drop role if exists pgflows_run")
        await admin.execute(f"drop role {OWNER}")


def binaries() -> Path:
    """The directory of the programs that belong to the server under test."""
    given = os.environ.get("PGFLOWS_TEST_PG_BIN")
    return Path(given) if given else EmbeddedServer.binaries_directory()


async def program(name: str, *arguments: str) -> None:
    """Runs a program of PostgreSQL to its end."""
    done = await asyncio.to_thread(
        subprocess.run, [str(binaries() / name), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def value(dsn: str, statement: str) -> object:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(statement)
    finally:
        await conn.close()
