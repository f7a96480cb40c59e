"""The embedded server: what it makes, what it survives, and what it says when it cannot start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer, account
from pgflows.database.migrations import migrate
from pgflows.errors import ServerError
from tests.conftest import FAST


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    binaries = os.environ.get("PGFLOWS_TEST_PG_BIN")
    server = EmbeddedServer(
        tmp_path / "data dir", binaries=Path(binaries) if binaries else None, options=FAST
    )
    yield server
    server.stop("immediate")


async def ask(dsn: str, question: str) -> object:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(question)
    finally:
        await conn.close()


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_the_owner_makes_roles_and_tables_and_is_no_superuser(server: EmbeddedServer) -> None:
    server.start()
    me = "select (rolsuper, rolcreaterole)::text from pg_roles where rolname = current_user"
    assert await ask(server.dsn, me) == "(f,t)"
    assert await ask(server.dsn, "select has_schema_privilege('public', 'create')") is True


async def test_tcp_wants_the_generated_password(server: EmbeddedServer) -> None:
    server.start()
    url = urlsplit(server.dsn)
    wrong = url._replace(netloc=f"pgflows:wrong@{url.hostname}:{url.port}").geturl()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(wrong, "select 1")
    assert await ask(server.dsn, "select current_user::text") == "pgflows"


def test_the_socket_and_the_passwords_are_for_their_user_only(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    server.start()
    assert stat.S_IMODE((tmp_path / "data dir" / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700


async def test_data_password_and_port_are_kept(server: EmbeddedServer) -> None:
    server.start()
    before = server.dsn
    await ask(before, "create table kept as select 7 as n")
    server.restart()
    assert server.dsn == before
    assert await ask(before, "select n from kept") == 7


def test_a_running_server_is_taken_over(server: EmbeddedServer, tmp_path: Path) -> None:
    server.start()
    other = EmbeddedServer(tmp_path / "data dir")
    if "PGFLOWS_TEST_PG_BIN" not in os.environ:
        other.start()
    assert other.pid == server.pid != 0


async def test_a_killed_server_starts_again(server: EmbeddedServer) -> None:
    server.start()
    kill(server.pid)
    server.start()
    assert await ask(server.dsn, "select 1") == 1


async def test_a_pid_file_that_names_another_process_is_stale(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    server.start()
    pid_file = tmp_path / "data dir" / "data" / "postmaster.pid"
    content = pid_file.read_text()
    server.stop()
    pid_file.write_text("\n".join([str(os.getppid()), *content.splitlines()[1:]]) + "\n")
    assert server.pid == 0
    server.start()
    assert await ask(server.dsn, "select 1") == 1


async def test_a_port_that_is_taken_meanwhile_is_left_to_its_user(server: EmbeddedServer) -> None:
    server.start()
    before = server.port
    server.stop()
    with socket_on(before):
        server.start()
        assert server.port != before
        assert await ask(server.dsn, "select 1") == 1


def test_half_made_data_is_made_anew(server: EmbeddedServer, tmp_path: Path) -> None:
    half = tmp_path / "data dir" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    assert server.pid
    assert not half.exists()


def test_data_of_another_major_version_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    data = tmp_path / "data dir" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    with pytest.raises(ServerError, match=r"was made by PostgreSQL 13, this is \d+; dump"):
        server.start()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"file/data cannot be written: Not a directory; set"):
        EmbeddedServer(tmp_path / "file" / "data").start()


def test_a_directory_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(ServerError, match=r"holds other things \(README.md\): set PGFLOWS_DATA"):
        EmbeddedServer(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot be run: No such file or directory; install"):
        EmbeddedServer(tmp_path / "data", binaries=tmp_path / "nothing").start()


def test_a_long_path_puts_the_socket_elsewhere(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / ("long-" * 30))
    assert len(str(server.socket_directory)) <= 90


def socket_on(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


@pytest.mark.parametrize(
    "name", ["comma,comma", "single'quote", 'double"quote', "$(touch made) `touch made`", "a  b"]
)
async def test_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    server = EmbeddedServer(tmp_path / name, options=FAST)
    try:
        assert await ask(server.start(), "select current_user") == "pgflows"
        server.restart()
        assert await ask(server.dsn, "select current_user") == "pgflows"
    finally:
        server.stop("immediate")
    assert not any("made" in files for _, _, files in os.walk(tmp_path))


async def test_copied_directory_has_a_socket_of_its_own(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    server.start()
    server.stop()
    shutil.copytree(
        tmp_path / "data dir", tmp_path / "copy", ignore=shutil.ignore_patterns("socket")
    )
    if os.geteuid() == 0:
        for path in [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]:
            shutil.chown(path, (tmp_path / "data dir").stat().st_uid)
    copy = EmbeddedServer(tmp_path / "copy", options=FAST)
    server.start()
    try:
        copy.start()
        assert copy.port != server.port
        directories = "show unix_socket_directories"
        assert await ask(copy.admin_dsn, directories) == str(copy.socket_directory)
        assert await ask(server.admin_dsn, directories) == str(server.socket_directory)
    finally:
        copy.stop("immediate")


def test_user_without_an_entry_is_told_before_initdb_fails() -> None:
    with pytest.raises(ServerError, match="the user 54321 has no entry in /etc/passwd"):
        account.check_entry(account.Account(54321, 54321))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root adds users")
def test_useradd_is_found_outside_of_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    account._add_user()
    assert pwd.getpwnam(account.SYSTEM_USER).pw_uid != 0


async def test_a_start_of_its_own_goes_over_a_connection_that_ends_with_it(
    server: EmbeddedServer,
) -> None:
    server.start()
    await migrate(server.dsn, Settings())
    owner = await asyncpg.connect(server.dsn)
    await owner.execute("create role app login password 'app'")
    await owner.execute("select df.grant_usage('app')")
    await owner.close()
    app = await asyncpg.connect(server.dsn, user="app", password="app")  # noqa: S106
    instance = await app.fetchval("select df.start('select 1', transaction_mode => 'new')")
    assert await app.fetchval("select df.status($1)", instance) == "pending"
    assert await app.fetchval("select dblink_get_connections()") is None
    await app.close()
