"""Every snippet of README, pages and docstrings does what it says, as it stands there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from pgflows.client import Client
from pgflows.database.embedded import EmbeddedServer
from tests.conftest import Database, Process, Spawn, free_port, until
from tests.repository.snippets import ROOT, snippet, uncovered

URL = "http://127.0.0.1:8000"
"""The service as the documentation names it."""

MOUNTED = """\
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from pgflows.http import create_pgflows_router, pgflows_lifespan
from pgflows.http.steps import PushMiddleware
from steps.orders import app

"""
ORDER = {"order_id": "ORD-1", "amount": 99.0}


def run_shell(text: str, directory: Path, **environment: str) -> str:
    """What the commands print; the test fails if one of them does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=directory,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory
    EmbeddedServer(directory).stop("immediate")


@pytest.fixture
def service(database: Database, spawn: Spawn) -> Process:
    """The sample app's service with an engine."""
    process = spawn("serve", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
    return process.wait_until_ready()


def test_every_snippet_of_the_documentation_is_run_by_a_test() -> None:
    missing = [f"{s.path}: {s.language}: {s.text.splitlines()[0]}" for s in uncovered()]
    assert missing == [], "write a test that gets each with snippet(path, containing) and runs it"


def test_the_tour_of_the_readme_does_what_it_says(
    tmp_path: Path, data_dir: Path, spawn: Spawn
) -> None:
    service = spawn("dev", PGFLOWS_DATA_DIR=str(data_dir)).wait_until_ready(60)
    start, status, history, export = (
        run_shell(block.replace(URL, service.url), tmp_path)
        for block in (
            snippet("README.md", "/start?wait=10"),
            snippet("README.md", """["instance_id"])')\n"""),
            snippet("README.md", "/history\n"),
            snippet("README.md", "/export/"),
        )
    )
    assert json.loads(start)["status"] == "completed"
    assert json.loads(status)["output"] == json.loads(start)["output"]
    steps = json.loads(history)["steps"]
    keys = ["charge_payment#1", "reserve_stock#1", "ship_order#1"]
    assert [s["step_key"] for s in steps] == keys
    assert [len(s["attempts"]) for s in steps] == [1, 1, 1]
    assert "select pgflows.define(" in export
    assert "df.http(" in export


def test_the_make_commands_of_the_readme_have_targets() -> None:
    commands = snippet("README.md", "make run").splitlines()
    assert [c.partition("#")[0].strip() for c in commands] == ["make run", "make test"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for target in sorted(set(re.findall(r"`?make (\w+)", readme))):
        run_shell(f"make --dry-run {target}", ROOT)


async def test_the_sql_of_the_readme_starts_a_run_in_the_transaction(
    service: Process, database: Database
) -> None:
    conn = await asyncpg.connect(database.dsn)
    await conn.execute("create table public.orders (order_id text, amount numeric)")
    await conn.execute(snippet("README.md", "select pgflows.start("))
    query = "select status from pgflows.instances where idempotency_key = 'order-2'"

    async def has_completed() -> bool:
        return bool(await conn.fetchval(query) == "completed")

    await until(has_completed, what="the end of the run")
    assert await conn.fetchval("select order_id from public.orders") == "ORD-2"
    await conn.close()


def test_the_commands_for_a_server_of_ones_own_work(database: Database, tmp_path: Path) -> None:
    port = str(free_port())
    text = snippet("README.md", "PGFLOWS_DSN")
    given = re.sub(r"(?<=PGFLOWS_DSN=)\S+", shlex.quote(database.dsn), text)
    serving = re.sub(
        r"^pgflows serve\b.*$", "pgflows serve & trap 'kill %1' EXIT", given, flags=re.M
    )
    waiting = f"until curl -sf http://127.0.0.1:{port}/readyz; do sleep 0.1; done\npgflows doctor"
    told = run_shell(
        serving.replace("pgflows doctor", waiting),
        tmp_path,
        PGFLOWS_PORT=port,
        PGFLOWS_RUN_DSN=database.run_dsn,
        PYTHONPATH=str(ROOT),
    )
    assert '"status":"ready"' in told.replace(" ", "")


async def test_the_request_of_the_flights_example_is_answered(
    service: Process, tmp_path: Path
) -> None:
    text = snippet("examples/flights/README.md", "compensate_delay")
    started = run_shell(text.replace("localhost:8000", f"localhost:{service.port}"), tmp_path)
    async with Client(service.url) as client:
        done = await client.wait(json.loads(started)["instance_id"], timeout=20)
    assert done.status == "completed"


def test_the_workflow_of_the_readme_runs(database: Database, spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(snippet("README.md", "async def process_order"))
    environment = {"PGFLOWS_APP": "orders:app", "PYTHONPATH": str(tmp_path)}
    service = spawn(
        "serve", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn, **environment
    ).wait_until_ready()
    started = httpx.post(
        f"{service.url}/workflows/process_order/start?wait=20", json={"input": ORDER}
    )
    assert started.json()["output"] == {"order_id": "ORD-1", "confirmation": "CHG-ORD-1"}


async def run_client(text: str, service: Process) -> dict[str, Any]:
    """The names that the snippet leaves behind; it may await at its top level."""
    names: dict[str, Any] = {"Client": Client}
    lines = text.replace(URL, service.url).splitlines()
    body = "\n".join(f"    {line}" for line in lines)
    exec(f"async def main():\n{body}\n    return locals()", names)  # noqa: S102 - our own docs
    left: dict[str, Any] = await names["main"]()
    return left


async def test_the_client_of_the_readme_and_of_its_docstring_work(service: Process) -> None:
    for text in (
        snippet("README.md", "async with Client("),
        snippet("app/pgflows/client.py", "async with Client("),
    ):
        left = await run_client(text, service)
        assert left["done"].status == "completed"


@asynccontextmanager
async def mounted(
    text: str, database: Database, spawn: Spawn, directory: Path
) -> AsyncIterator[Client]:
    """A FastAPI application of the user's own behind uvicorn, with an engine beside it."""
    (directory / "service.py").write_text(text)
    port = free_port()
    base_url = f"http://127.0.0.1:{port}/pgflows"
    environment = os.environ | {
        "PGFLOWS_DSN": database.dsn,
        "PGFLOWS_RUN_DSN": database.run_dsn,
        "PGFLOWS_BASE_URL": base_url,
        "PYTHONPATH": f"{directory}:{ROOT}",
    }
    command = [sys.executable, "-m", "uvicorn", "service:service", "--port", str(port)]
    spawn("engine", dsn=database.dsn, PGFLOWS_RUN_DSN=database.run_dsn)
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=directory)
    try:
        await until(lambda: answers(f"{base_url}/readyz"), 30, "the mounted service")
        async with Client(base_url) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def test_the_routes_are_mounted_as_the_readme_says(
    database: Database, spawn: Spawn, tmp_path: Path
) -> None:
    text = snippet("README.md", "service.include_router")
    async with mounted(text, database, spawn, tmp_path) as client:
        assert (await client.start("process_order", ORDER, wait=20)).status == "completed"


async def test_the_routes_are_mounted_as_the_docstring_says(
    database: Database, spawn: Spawn, tmp_path: Path
) -> None:
    text = MOUNTED + snippet("app/pgflows/http/app.py", "lifespan=lambda")
    text += snippet("app/pgflows/http/app.py", "PushMiddleware")
    async with mounted(text, database, spawn, tmp_path) as client:
        assert (await client.start("process_order", ORDER, wait=20)).status == "completed"


async def test_the_routes_are_mounted_in_a_lifespan_of_ones_own(
    database: Database, spawn: Spawn, tmp_path: Path
) -> None:
    text = MOUNTED + snippet("app/pgflows/http/app.py", "@asynccontextmanager")
    async with mounted(text, database, spawn, tmp_path) as client:
        assert (await client.start("process_order", ORDER, wait=20)).status == "completed"
