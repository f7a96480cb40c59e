"""The commands that go over HTTP: start, status, history, list, cancel, export."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from pgflows.cli import app, tables
from pgflows.client import Client
from pgflows.errors import Unauthorized
from tests.http.conftest import Serve

ORDER = '{"order_id": "ORD-1", "amount": 1}'
NOWHERE = "http://127.0.0.1:1"


async def run(url: str, *arguments: str, stdin: str | None = None) -> Result:
    where = {"PGFLOWS_URL": url}
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), input=stdin, env=where)


async def test_a_run_from_its_start_to_its_history(live: Client, tmp_path: Path) -> None:
    started = await run(live.base_url, "start", "process_order", ORDER, "--wait", "20", "--json")
    instance = json.loads(started.stdout)
    assert (started.exit_code, instance["status"]) == (0, "completed")

    status = await run(live.base_url, "status", instance["df_id"])
    assert "PARCEL-CHG-ORD-1" in status.stdout
    assert "completed" in status.stdout

    history = await run(live.base_url, "history", instance["instance_id"])
    assert "charge#1" in history.stdout
    assert "ship#1" in history.stdout

    listed = await run(live.base_url, "list", "--status", "completed", "--json")
    assert [i["df_id"] for i in json.loads(listed.stdout)["instances"]] == [instance["df_id"]]
    assert instance["instance_id"] in (await run(live.base_url, "list")).stdout

    file = tmp_path / "process_order.sql"
    exported = await run(live.base_url, "export", "process_order", "-o", str(file))
    assert exported.exit_code == 0
    assert file.read_text() == (await run(live.base_url, "export", "process_order")).stdout


async def test_cancel_tells_how_the_instance_stands(live: Client) -> None:
    started = await live.start("slow_order", {"order_id": "ORD-1", "amount": 3})
    cancelled = await run(live.base_url, "cancel", str(started.instance_id), "--reason", "late")
    assert cancelled.exit_code == 0
    assert "cancelled" in cancelled.stdout
    assert "late" in cancelled.stdout
    history = await run(live.base_url, "history", str(started.instance_id))
    assert "null" not in history.stdout


async def test_the_input_may_come_from_a_file_or_standard_input(
    live: Client, tmp_path: Path
) -> None:
    (tmp_path / "order.json").write_text(ORDER)
    file = await run(live.base_url, "start", "process_order", f"@{tmp_path}/order.json", "--json")
    piped = await run(live.base_url, "start", "process_order", "-", "--json", stdin=ORDER)
    assert (
        json.loads(file.stdout)["input"] == json.loads(piped.stdout)["input"] == json.loads(ORDER)
    )


async def test_what_is_refused_is_one_line_and_exit_code_1(live: Client) -> None:
    missing = await run(live.base_url, "start", "process_order", '{"order_id": "ORD-1"}')
    unknown = await run(live.base_url, "status", "00000000")
    assert (missing.exit_code, unknown.exit_code) == (1, 1)
    assert "amount" in missing.stderr
    assert "there is no instance 00000000" in unknown.stderr


async def test_a_bad_argument_needs_no_service() -> None:
    for argument in ("{", "[]", "@/does/not/exist"):
        result = await run(NOWHERE, "start", "process_order", argument)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")


async def test_no_service_is_one_line_and_what_to_do() -> None:
    result = await run(NOWHERE, "list")
    error, hint = result.stderr.splitlines()
    assert result.exit_code == 1
    assert "does not answer" in error
    assert "start it with `pgflows dev`" in hint


async def test_a_url_that_is_malformed_is_named() -> None:
    for url in ("nonsense", "ftp://service"):
        assert "is not the URL of a service" in (await run(url, "list")).stderr


async def test_a_run_that_was_waited_for_and_failed_is_exit_code_1(live: Client) -> None:
    waited = await run(live.base_url, "start", "refused_order", ORDER, "--wait", "20")
    assert (waited.exit_code, "no credit" in waited.stdout) == (1, True)
    assert (await run(live.base_url, "start", "refused_order", ORDER)).exit_code == 0


async def test_a_list_is_whole_in_a_pipe_and_fits_80_columns_in_a_terminal(
    live: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = await live.start("process_order", json.loads(ORDER), label="web", wait=20)
    piped = (await run(live.base_url, "list")).stdout.splitlines()
    assert piped[1].split()[:4] == [
        str(started.instance_id), "completed", "process_order", "web",
    ]  # fmt: skip
    assert piped[1].rstrip().endswith(f" {started.df_id}")
    monkeypatch.setattr(tables, "out", Console(force_terminal=True, width=80, color_system=None))
    shown = (await run(live.base_url, "list")).stdout.splitlines()
    assert len(shown) == 2
    assert shown[1].split()[:4] == piped[1].split()[:4]


async def test_a_file_that_cannot_be_written_is_one_line(live: Client, tmp_path: Path) -> None:
    result = await run(live.base_url, "export", "process_order", "-o", f"{tmp_path}/no/where.sql")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr


async def test_a_service_with_keys_says_how_to_give_one(serve: Serve) -> None:
    async with serve(api_keys="one") as http:
        transport = http._transport
        client = Client("http://service", transport=transport)
        with pytest.raises(Unauthorized) as refused:
            await client.list()
    assert "Authorization: Bearer" in refused.value.data["hint"]
