"""Commands as a process of their own, in environments that people have."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from pgflows.client import Client

LIGHT = "import sys, pgflows.cli.remote; print([m for m in sys.argv[1:] if m in sys.modules])"


async def command(
    *arguments: str, stdin: bytes | None = None, **environment: str
) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error of `pgflows ARGUMENTS`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=os.environ | environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = await process.communicate(stdin)
    return process.returncode or 0, printed, complained.decode("utf-8", "replace")


async def pgflows(live: Client, *arguments: str, **environment: str) -> tuple[int, bytes, str]:
    given = environment | {"PGFLOWS_URL": live.base_url}
    return await command("-m", "pgflows", *arguments, stdin=None, **given)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
async def test_commands_print_any_label_on_any_terminal(live: Client, encoding: str) -> None:
    order = {"order_id": "ORD-\u65e5\u672c-\U0001f600-\u00e9", "amount": 1}
    started = await live.start("process_order", order, label="\u65e5\u672c \u00e9", wait=20)
    name = str(started.instance_id)
    for arguments in (("status", name), ("history", name), ("list",), ("export", "process_order")):
        code, printed, complained = await pgflows(live, *arguments, PYTHONIOENCODING=encoding)
        assert (code, complained) == (0, "")
        assert printed
    code, printed, _ = await pgflows(live, "status", name, "--json", PYTHONIOENCODING=encoding)
    assert json.loads(printed.decode(encoding))["input"] == order


async def test_input_from_standard_input_is_utf8_whatever_the_terminal_is(live: Client) -> None:
    order = {"order_id": "ORD-\u65e5\u672c", "amount": 1}
    given = json.dumps(order, ensure_ascii=False).encode()
    code, printed, _ = await command(
        "-m", "pgflows", "start", "process_order", "-", "--json",
        stdin=given, PGFLOWS_URL=live.base_url, PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert (code, json.loads(printed)["input"]) == (0, order)


async def test_bytes_that_are_not_utf8_are_refused_in_one_line(live: Client) -> None:
    code, _, complained = await command(
        "-m", "pgflows", "start", "process_order", "-",
        stdin=b'{"order_id": "\xff", "amount": 1}', PGFLOWS_URL=live.base_url,
    )  # fmt: skip
    assert (code, "not UTF-8" in complained) == (1, True)
    label = os.fsdecode(b"\xff")
    code, _, complained = await pgflows(
        live, "start", "process_order", '{"order_id": "A", "amount": 1}', "--label", label
    )
    assert (code, "cannot be sent" in complained, "Traceback" in complained) == (1, True, False)


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTP_PROXY", "http_proxy", "all_proxy"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense"])
async def test_a_service_on_this_machine_is_asked_without_proxies(
    live: Client, name: str, proxy: str
) -> None:
    code, _, complained = await pgflows(live, "list", "--json", **{name: proxy})
    assert (code, complained) == (0, "")


async def test_a_proxy_that_cannot_be_used_is_one_line(live: Client) -> None:
    code, _, complained = await pgflows(
        live, "list", "--url", "http://pgflows.example", ALL_PROXY="socks5://127.0.0.1:9"
    )
    assert (code, "ALL_PROXY" in complained, "Traceback" in complained) == (1, True, False)


async def test_remote_commands_do_not_import_what_only_a_server_needs() -> None:
    heavy = ("aiohttp", "asyncpg", "fastapi", "uvicorn", "pgmq", "psutil", "pgflows.flow")
    code, printed, _ = await command("-c", LIGHT, *heavy)
    assert (code, printed.strip()) == (0, b"[]")
