"""The commands as processes: what they print, how they end, and one line for each known error."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from pgflows.client import Client
from pgflows.database.embedded import EmbeddedServer
from tests.conftest import Database, Process, Spawn

NOWHERE = "postgresql://someone:secret@127.0.0.1:1/nothing"
ORDER = {"order_id": "ORD-1", "amount": 99.0}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgflows", *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def shell(line: str) -> str:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    return done.stdout


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command ended with."""
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory for `dev`; its server is stopped at the end."""
    directory = tmp_path / "data"
    yield directory
    EmbeddedServer(directory).stop("immediate")


def dev(spawn: Spawn, data_dir: Path, **environment: str) -> Process:
    process = spawn("dev", PGFLOWS_DATA_DIR=str(data_dir), **environment)
    return process.wait_until_ready(40)


def wait_for_output(process: Process, text: str) -> str:
    deadline = time.monotonic() + 10
    while text not in process.output():
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.02)
    return process.output()


def ending(process: Process, how: signal.Signals) -> int:
    assert process.popen is not None
    process.kill(how)
    return process.popen.returncode


async def test_dev_prints_what_to_try_and_it_works(spawn: Spawn, data_dir: Path) -> None:
    process = dev(spawn, data_dir)
    shown = wait_for_output(process, "Ctrl-C stops everything")
    curls = [line.strip() for line in shown.splitlines() if line.startswith("  curl ")]
    assert len(curls) == 3
    answers = [await asyncio.to_thread(shell, line) for line in curls]
    assert json.loads(answers[0])["status"] == "completed"
    assert len(json.loads(answers[1])["instances"]) == 1
    assert "process_order" in answers[2]
    found = re.search(r'psql "(\S+)"', shown)
    assert found
    conn = await asyncpg.connect(found[1])
    started = await conn.fetchval("select pgflows.start('process_order', $1)", json.dumps(ORDER))
    await conn.close()
    async with Client(process.url) as client:
        assert (await client.wait(started, timeout=20)).status == "completed"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_dev_and_its_server_in_order(
    spawn: Spawn, data_dir: Path, how: signal.Signals
) -> None:
    process = dev(spawn, data_dir)
    server = EmbeddedServer(data_dir)
    assert server.pid
    assert ending(process, how) == 0, process.output()
    assert server.pid == 0
    assert "Traceback" not in process.output()
    assert "ERROR" not in process.output()


async def test_dev_takes_over_the_server_that_a_killed_one_left(
    spawn: Spawn, data_dir: Path
) -> None:
    first = dev(spawn, data_dir)
    before = EmbeddedServer(data_dir).pid
    async with Client(first.url) as client:
        instance = await client.start("process_order", ORDER, wait=20)
    first.kill()
    second = dev(spawn, data_dir)
    assert EmbeddedServer(data_dir).pid == before
    async with Client(second.url) as client:
        assert (await client.get(instance.instance_id)).status == "completed"


def test_a_second_dev_in_the_same_directory_is_refused(spawn: Spawn, data_dir: Path) -> None:
    dev(spawn, data_dir)
    done = run("dev", "--port", "0", PGFLOWS_DATA_DIR=str(data_dir))
    assert "another `pgflows dev` uses" in error_of(done)


def test_doctor_and_keys_find_the_server_that_dev_runs(spawn: Spawn, data_dir: Path) -> None:
    dev(spawn, data_dir).wait_until_ready()
    done = run("doctor", "--json", PGFLOWS_DATA_DIR=str(data_dir))
    verdicts = {f["what"]: f["verdict"] for f in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert verdicts["engine"] == verdicts["login as pgflows_run"] == "ok"
    before = json.loads(run("keys", "list", "--json", PGFLOWS_DATA_DIR=str(data_dir)).stdout)
    assert run("keys", "rotate", PGFLOWS_DATA_DIR=str(data_dir)).returncode == 0
    after = json.loads(run("keys", "list", "--json", PGFLOWS_DATA_DIR=str(data_dir)).stdout)
    assert len(after) == len(before) + 1


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("dev", "--port", str(port), PGFLOWS_DATA_DIR=str(tmp_path / "data"))
    assert f"port {port}: Address already in use; stop what uses it" in error_of(done)
    assert not (tmp_path / "data").exists()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("dev", "--port", "0", PGFLOWS_DATA_DIR=str(tmp_path / "file" / "data"))
    assert "cannot be written" in error_of(done)


def test_data_of_another_major_version_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("13\n")
    done = run("dev", "--port", "0", PGFLOWS_DATA_DIR=str(tmp_path))
    assert "was made by PostgreSQL 13" in error_of(done)


@pytest.mark.parametrize("command", ["dev", "serve", "engine", "migrate"])
def test_a_database_that_is_away_is_one_line_without_the_password(command: str) -> None:
    port = ["--port", "0"] if command in ("dev", "serve") else []
    line = error_of(run(command, *port, "--dsn", NOWHERE))
    assert "cannot connect to the database postgresql://127.0.0.1:1/nothing" in line
    assert "secret" not in line


@pytest.mark.parametrize("command", ["serve", "engine", "migrate"])
def test_no_database_is_one_line(command: str, tmp_path: Path) -> None:
    done = run(command, PGFLOWS_DATA_DIR=str(tmp_path))
    assert "no database is named" in error_of(done)


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["engine"], ["keys", "list"]])
async def test_a_database_that_is_not_migrated_is_one_line(
    command: list[str], database: Database
) -> None:
    conn = await asyncpg.connect(database.admin_dsn)
    await conn.execute("drop schema pgflows cascade")
    await conn.close()
    done = await asyncio.to_thread(run, *command, "--dsn", database.dsn)
    assert "run `pgflows migrate`" in error_of(done)


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["engine"]])
def test_an_engine_that_cannot_log_in_as_pgflows_run_is_one_line(
    command: list[str], database: Database
) -> None:
    nobody = database.run_dsn.replace(f"/{database.name}", "/nowhere")
    done = run(*command, "--dsn", database.dsn, PGFLOWS_RUN_DSN=nobody)
    line = done.stderr.splitlines()[-1]  # after what the service logs
    assert done.returncode == 1
    assert "cannot log in as pgflows_run: " in line
    assert "set PGFLOWS_RUN_DSN" in line


def test_an_app_that_is_not_there_is_one_line() -> None:
    assert "there is no module 'nothing'" in error_of(run("check", PGFLOWS_APP="nothing:app"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGFLOWS_PORT", "many"),
        ("PGFLOWS_BASE_URL", "pgflows.internal:8000"),
        ("PGFLOWS_HTTP_TARGETS", "http://a/,private:b"),
        ("PGFLOWS_OTLP_ENDPOINT", "collector"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(name: str, value: str) -> None:
    assert error_of(run("check", **{name: value})).startswith(f"error: {name}: ")


def test_a_setting_that_is_empty_is_as_one_that_is_not_there() -> None:
    settings = ("PORT", "DSN", "DATA_DIR", "BASE_URL", "API_KEYS", "STEP_TIMEOUT")
    done = run("check", **{f"PGFLOWS_{name}": "" for name in settings})
    assert done.returncode == 0, done.stderr


def test_check_counts_what_is_in_order() -> None:
    assert run("check").stdout == "2 workflows and 7 steps: all in order\n"


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"pgflows \d+\.\d+\.\d+\n", run("--version").stdout)


def test_serve_stays_on_loopback_without_api_keys(database: Database) -> None:
    done = run("serve", "--host", "0.0.0.0", "--port", "0", PGFLOWS_DSN=database.dsn)  # noqa: S104 - refused
    assert "set PGFLOWS_API_KEYS" in error_of(done)


def test_serve_on_every_address_wants_to_know_where_the_steps_are_reached(
    database: Database,
) -> None:
    done = run("serve", "--host", "0.0.0.0", PGFLOWS_DSN=database.dsn, PGFLOWS_API_KEYS="k")  # noqa: S104 - refused
    assert "set PGFLOWS_BASE_URL" in error_of(done)


async def test_service_and_engine_run_as_processes_of_their_own(
    spawn: Spawn, database: Database
) -> None:
    login = {"PGFLOWS_RUN_DSN": database.run_dsn}
    service = spawn("serve", "--no-engine", dsn=database.dsn, **login).wait_until_ready()
    engine = spawn("engine", dsn=database.dsn, **login)
    async with Client(service.url) as client:
        run = await client.start("process_order", ORDER, wait=20)
        assert run.status == "completed", engine.output()
    assert ending(engine, signal.SIGTERM) == 0
    assert ending(service, signal.SIGTERM) == 0


async def test_a_run_that_a_signal_interrupts_goes_on(spawn: Spawn, database: Database) -> None:
    service = spawn("serve", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
    async with Client(service.wait_until_ready().url) as client:
        started = [await client.start("process_order", ORDER) for _ in range(10)]
        assert ending(service, signal.SIGTERM) == 0, service.output()
        service.start().wait_until_ready()
        for one in started:
            assert (await client.wait(one.instance_id, timeout=20)).status == "completed"
