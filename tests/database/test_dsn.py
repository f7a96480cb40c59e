"""Connection strings as people have them."""

from __future__ import annotations

import asyncio
import getpass
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from pgflows.config import Settings
from pgflows.database.connections import connect
from pgflows.database.dsn import as_role, parse, shown, user_of
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from pgflows.engine import open_engine
from pgflows.errors import SetupError
from tests.conftest import Database, Spawn


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgres://u@h/d", "postgresql://u@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql://u@h/d"),
        ("postgresql+psycopg2://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u:a%2Fb%40c@h/d", "postgresql://u:a%2Fb%40c@h/d"),
        ("postgresql://u:a:b@h/d", "postgresql://u:a%3Ab@h/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u@one:1,two:2/d", "postgresql://u@one:1,two:2/d"),
        ("postgresql://u@%2Ftmp%2Fs/d", "postgresql://u@%2Ftmp%2Fs/d"),
        ("postgresql://u@/d?host=/tmp/s", "postgresql://u@/d?host=%2Ftmp%2Fs"),
        ("postgresql:///d?user=u&password=p", "postgresql://u:p@/d"),
        ("postgresql://u@h/d?hostaddr=10.0.0.1", "postgresql://u@/d?host=10.0.0.1"),
        ("postgresql://u@h/d?keepalives_idle=30&tcp_user_timeout=9", "postgresql://u@h/d"),
        ("postgresql://u@h/d?application_name=a&client_encoding=utf8", "postgresql://u@h/d"),
        ("postgresql://u@h/d?channel_binding=require", "postgresql://u@h/d"),
        (
            "postgresql://u@h/d?sslmode=require&target_session_attrs=read-write",
            "postgresql://u@h/d?sslmode=require&target_session_attrs=read-write",
        ),
        ("host=h port=5 user=u dbname=d", "postgresql://u@/d?host=h&port=5"),
        (r"host=/tmp user=u password='it\'s a/b@c' dbname='d 1'",
         "postgresql://u:it%27s%20a%2Fb%40c@/d%201?host=%2Ftmp"),
    ],
)  # fmt: skip
def test_a_connection_string_is_made_into_what_the_driver_understands(dsn: str, url: str) -> None:
    assert parse(dsn).url == url


def test_the_time_to_connect_is_the_drivers_and_not_a_setting_of_the_server() -> None:
    assert parse("postgresql://u@h/d?connect_timeout=7").timeout_seconds == 7
    assert parse("postgresql://u@h/d?connect_timeout=7").url == "postgresql://u@h/d"
    assert parse("host=h user=u connect_timeout=0").timeout_seconds == 60
    with pytest.raises(SetupError, match="connect_timeout=soon"):
        parse("postgresql://u@h/d?connect_timeout=soon")


@pytest.mark.parametrize("character", ["/", "?", "#", "[", "]", "@", "/@", "?@", "#a@b@", "1/2"])
def test_a_password_that_is_not_encoded_is_not_shown_and_what_to_do_is_said(character: str) -> None:
    dsn = f"postgresql://user:Sec{character}ret@host:5432/db"
    with pytest.raises(SetupError, match="percent-encode") as refused:
        parse(dsn)
    assert "Sec" not in refused.value.message
    assert "ret" not in refused.value.message
    assert "host:5432/db" in refused.value.message
    assert shown(dsn) == "postgresql://host:5432/db"


@pytest.mark.parametrize(
    "dsn",
    ["", "   ", "elsewhere", "mysql://u:Secret@h/d", "host=h password=Sec ret", "host=h dbname='d"],
)
def test_what_is_no_connection_string_is_refused_in_a_line(dsn: str) -> None:
    with pytest.raises(SetupError, match="not a connection string") as refused:
        parse(dsn)
    assert "Sec" not in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        ("postgresql://u:secret@h:1/d?sslmode=require", "postgresql://h:1/d"),
        ("postgresql://h/d?user=u&password=sec@ret", "postgresql://h/d"),
        ("postgresql://u@/d?host=/tmp/s", "postgresql:///tmp/s/d"),
        ("host=h dbname=d password=secret", "h/d"),
    ],
)
def test_a_connection_string_is_shown_without_its_password(dsn: str, text: str) -> None:
    assert shown(dsn) == text


def test_another_role_has_the_same_server_and_no_password() -> None:
    dsn = "postgresql+asyncpg://u:secret@one,two/d?sslmode=require&connect_timeout=3"
    assert as_role(dsn, "x y", None) == "postgresql://x%20y@one,two/d?sslmode=require"
    assert as_role("host=h user=u", "r", "p/w") == "postgresql://r:p%2Fw@/?host=h"


def test_a_process_whose_user_has_no_name_is_told_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.delenv("PGUSER", raising=False)
    with pytest.raises(SetupError, match="names no user"):
        parse("postgresql://nameless-host/d")
    assert user_of("postgresql://u@nameless-host/d") == "u"


async def test_a_string_with_what_libpq_knows_connects(database: Database) -> None:
    glue = "&" if "?" in database.dsn else "?"
    dsn = database.dsn + glue + (
        "connect_timeout=5&keepalives=1&keepalives_idle=10&application_name=mine&gssencmode=disable"
        f"&options={quote('-c work_mem=5MB')}"
    )  # fmt: skip
    conn = await connect(dsn)
    assert await conn.fetchval("show work_mem") == "5MB"
    assert await conn.fetchval("show application_name") == "pgflows command"
    await conn.close()


@pytest.mark.parametrize("command", ["migrate", "doctor", "engine", "serve"])
async def test_commands_do_not_show_a_password_that_is_not_encoded(
    spawn: Spawn, command: str
) -> None:
    process = spawn(command, dsn="postgresql://user:Sec/r?et#x@127.0.0.1:1/db")
    assert process.popen is not None
    assert process.popen.wait(30) == 1
    assert "percent-encode" in process.output()
    assert "Sec" not in process.output()
    assert "Traceback" not in process.output()


async def test_the_owners_own_nodes_need_no_second_password() -> None:
    with tempfile.TemporaryDirectory(prefix="pgflows-owner-") as name:
        server = EmbeddedServer(Path(name))
        await asyncio.to_thread(server.start)
        try:
            settings = Settings(dsn=server.dsn)  # over TCP, where the server asks for a password
            await migrate(server.dsn, settings)
            owner = await connect(server.dsn)
            async with open_engine(settings, dsn=server.dsn) as engine:
                task = asyncio.create_task(engine.serve())
                instance = await owner.fetchval("select df.start('select current_user::text')")
                status = await owner.fetchval("select df.await_instance($1, 20)", instance)
                assert status == "completed", await owner.fetch("select * from df.nodes")
                task.cancel()
            await owner.close()
        finally:
            await asyncio.to_thread(server.stop, "immediate")
