"""What `pgflows doctor` finds on servers and networks that are not as they should be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from pgflows.cli.doctor import Finding, examine
from pgflows.cli.doctor import server as server_checks
from pgflows.config import Settings
from pgflows.database.migrations import migrate
from pgflows.errors import SetupError
from tests.conftest import Database
from tests.database.conftest import OWNER, Server, value


async def findings(dsn: str, **settings: object) -> dict[str, Finding]:
    found = await examine(dsn, Settings.model_validate(settings))
    assert not [f for f in found if "\n" in f.found + f.advice]
    assert not [f for f in found if "cannot be looked at" in f.found]
    return {f.what: f for f in found}


@asynccontextmanager
async def answering(text: bytes) -> AsyncIterator[int]:
    """A server on loopback that gives one answer to whatever it is asked; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def register(database: Database, port: int) -> str:
    url = f"http://127.0.0.1:{port}"
    conn = await asyncpg.connect(database.dsn)
    await conn.execute("insert into pgflows.base_urls (url) values ($1)", url)
    await conn.close()
    return f"step service {url}"


async def test_doctor_tells_a_database_that_is_read_only(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    await server.as_admin("one", "alter database one set default_transaction_read_only = on")
    found = await findings(server.dsn("one"))
    assert found["server"].found == "the database is read-only"
    assert found["server"].verdict == "broken"


async def test_other_encoding_is_refused_before_anything_is_changed(server: Server) -> None:
    await server.as_admin(
        "postgres",
        "drop database two",
        f"create database two owner {OWNER} encoding 'LATIN1' locale 'C' template template0",
    )
    with pytest.raises(SetupError, match="encoding of this database is LATIN1") as e:
        await migrate(server.dsn("two"), Settings())
    assert "\n" not in e.value.message
    assert await value(server.dsn("two"), "select to_regnamespace('pgflows')") is None
    assert (await findings(server.dsn("two")))["encoding"].verdict == "broken"


async def test_doctor_counts_connections_against_the_lowest_limit(server: Server) -> None:
    await migrate(server.dsn("one"), Settings())
    assert (await findings(server.dsn("one")))["connections"].verdict == "ok"
    await server.as_admin("one", f"alter role {OWNER} connection limit 12")
    found = (await findings(server.dsn("one")))["connections"]
    assert found.verdict == "warning"
    assert found.found.startswith("12 (of the role's connection limit)")
    need = 10 + server_checks.SERVICE_CONNECTIONS + server_checks.ENGINE_CONNECTIONS
    assert f"up to {need}" in found.advice


async def test_doctor_asks_services_past_all_proxies(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") as port:
        what = await register(database, port)
        found = await findings(database.dsn, run_dsn=database.run_dsn)
    assert (found[what].verdict, found[what].found) == ("ok", "answers")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 308 Moved\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", "answers 308"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answers 404"),
        (b"SSH-2.0-x\r\n\r\n", "not reachable"),
        (b"", "not reachable"),
    ],
)
async def test_doctor_tells_what_answers_in_the_place_of_a_service(
    database: Database, answer: bytes, said: str
) -> None:
    async with answering(answer) as port:
        what = await register(database, port)
        found = await findings(database.dsn, run_dsn=database.run_dsn)
    assert found[what].verdict == "warning"
    assert said in found[what].found


async def test_doctor_tells_a_service_that_is_not_there(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    what = await register(database, port)
    found = await findings(database.dsn, run_dsn=database.run_dsn)
    assert found[what].found.startswith("not reachable")


async def test_doctor_names_a_step_that_nobody_begins(
    database: Database, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await owner.execute(
        "with i as (insert into pgflows.instances (instance_id, workflow, version, status, input, "
        "started_by) values (pgflows.uuid7(), 'w', '1', 'running', '{}', 'x') "
        "returning instance_id) "
        "insert into pgflows.step_runs (instance_id, step_key, step, seq, key_id, input, "
        "requested_at) select instance_id, 'forgotten#1', 'forgotten', 1, 'k', '{}', "
        "now() - interval '1 minute' from i"
    )
    found = await findings(database.dsn, run_dsn=database.run_dsn)
    assert "asked for by 1 run" in found["step forgotten"].found


async def test_doctor_tells_a_run_dsn_that_leads_elsewhere(
    database: Database, server_dsn: str
) -> None:
    elsewhere = database.run_dsn.replace(f"/{database.name}", "/postgres")
    found = await findings(database.dsn, run_dsn=elsewhere)
    assert found["login as pgflows_run"].verdict == "broken"
    assert "pgflows_run in postgres" in found["login as pgflows_run"].found
