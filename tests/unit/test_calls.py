"""Calls of HTTP nodes against servers that misbehave: limits, time-outs, redirects, no repeats."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pgflows.engine.call.base_urls import BaseUrls
from pgflows.engine.call.calls import Calls
from pgflows.engine.call.steps import StepCalls, Waiting
from pgflows.engine.call.targets import Targets
from pgflows.engine.node.results import NodeFailed, Refused, Result
from tests.unit.test_targets import Answers

MOST = 10_000
Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


def says(head: str, body: bytes = b"") -> Speak:
    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return speak


OK = says("HTTP/1.1 200 OK\ncontent-length: 2", b"ok")


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


class Peer:
    """A server on loopback, the engine's client for it, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.asked: list[bytes] = []
        self.open: list[bool] = []
        self.waiting: list[Waiting] = []
        self.out = self.client(f"http://127.0.0.1:{port}/open")

    def client(self, *prefixes: str, resolver: Answers | None = None) -> Calls:
        async def registered() -> list[str]:
            return []

        self.targets = Targets(prefixes)
        steps = StepCalls(self.await_steps)
        return Calls(BaseUrls(self.targets, registered), steps, MOST, resolver=resolver)

    async def await_steps(self, waiting: Sequence[Waiting]) -> list[bool]:
        """Answers whether the ledger has the steps open, and takes one of the answers off."""
        self.waiting.extend(waiting)
        return [self.open.pop(0) if self.open else False for _ in waiting]

    async def call(
        self,
        url: str | None = None,
        method: str = "GET",
        out: Calls | None = None,
        **more: Any,
    ) -> Result:
        async def pause(seconds: float) -> None:
            raise AssertionError("a call that is not a step's was to be repeated")

        open_url = f"http://127.0.0.1:{self.port}/open/x"
        spec = {"url": open_url if url is None else url, "method": method} | more
        return await (out or self.out).call(spec, str, pause)


@asynccontextmanager
async def peer(*answers: Speak) -> AsyncIterator[Peer]:
    """Answers requests in order, whichever connection they come on; then it is silent."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            while True:
                found.asked.append(await reader.readuntil(b"\r\n\r\n"))
                await (left.pop(0) if left else hang_up)(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found = Peer(server.sockets[0].getsockname()[1])
    async with server:
        try:
            yield found
        finally:
            await found.out.close()


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with peer(*[OK] * 20) as service:
        for _ in range(20):
            assert (await service.call()).value["body"] == "ok"
    assert service.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_not_followed(status: int) -> None:
    head = f"HTTP/1.1 {status} Moved\nlocation: /open/elsewhere\ncontent-length: 0"
    async with peer(says(head), OK) as service:
        answer = (await service.call()).value
    assert (answer["status"], answer["ok"]) == (status, False)
    assert len(service.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_fails_the_node_at_once(status: int) -> None:
    head = f"HTTP/1.1 {status} Broken\nretry-after: 1\ncontent-length: 3"
    async with peer(says(head, b"why"), OK) as service:
        with pytest.raises(NodeFailed, match=rf"^HTTP GET \S+ returned {status}: why$"):
            await service.call()
    assert len(service.asked) == 1


@pytest.mark.parametrize("status", [404, 409, 429])
async def test_a_refusal_is_an_answer_and_not_repeated(status: int) -> None:
    async with peer(says(f"HTTP/1.1 {status} No\ncontent-length: 0"), OK) as service:
        assert (await service.call()).value["status"] == status
    assert len(service.asked) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_connection_that_breaks_is_not_repeated_even_where_it_was_kept(method: str) -> None:
    async with peer(OK, hang_up, OK) as service:
        await service.call(method=method)
        with pytest.raises(NodeFailed, match=r"^HTTP connection failed: "):
            await service.call(method=method)
    assert len(service.asked) == 2


async def test_nobody_there_fails_the_node() -> None:
    async with peer() as service:
        pass
    nowhere = Peer(service.port)
    with pytest.raises(NodeFailed, match=r"^HTTP connection failed: "):
        await nowhere.call()
    await nowhere.out.close()


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


BOMB = gzip.compress(bytes(50_000_000))
TOO_LARGE = {
    "sized": says(f"HTTP/1.1 200 OK\ncontent-length: {MOST + 1}", bytes(MOST + 1)),
    "chunked": says("HTTP/1.1 200 OK\ntransfer-encoding: chunked", chunked(bytes(MOST + 1))),
    "gzip": says(f"HTTP/1.1 200 OK\ncontent-encoding: gzip\ncontent-length: {len(BOMB)}", BOMB),
    "gzip chunked": says(
        "HTTP/1.1 200 OK\ncontent-encoding: gzip\ntransfer-encoding: chunked", chunked(BOMB)
    ),
    "deflate": says(
        "HTTP/1.1 200 OK\ncontent-encoding: deflate\ntransfer-encoding: chunked",
        chunked(zlib.compress(bytes(5_000_000))),
    ),
    "to the end": says("HTTP/1.1 500 No\nconnection: close", bytes(MOST + 1)),
}


@pytest.mark.parametrize("how", TOO_LARGE)
async def test_an_answer_beyond_the_limit_fails_and_says_so(how: str) -> None:
    async with peer(TOO_LARGE[how]) as service:
        with pytest.raises(NodeFailed, match=f"larger than {MOST} bytes.*HTTP_MAX_RESPONSE"):
            await service.call()


async def test_an_answer_at_the_limit_is_taken() -> None:
    full = says(f"HTTP/1.1 200 OK\ncontent-type: text/plain\ncontent-length: {MOST}", b"x" * MOST)
    async with peer(full) as service:
        assert len((await service.call()).value["body"]) == MOST


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_the_time_out_is_of_the_whole_call() -> None:
    async with peer(drip) as service:
        with pytest.raises(NodeFailed, match=r"^HTTP timeout after 0.5s: "):
            await service.call(timeout_seconds=0.5)
    assert len(service.asked) == 1


FORGED: dict[str, dict[str, Any]] = {
    "host": {"headers": {"Host": "inside.example"}},
    "length": {"headers": {"content-LENGTH": "0"}, "body": "GET /inside HTTP/1.1\r\n\r\n"},
    "chunks": {"headers": {"Transfer-Encoding": "chunked"}},
    "connection": {"headers": {"Connection": "upgrade"}},
    "name": {"headers": {"Host: inside.example\r\nX": "y"}},
    "colon": {"headers": {"Host:inside.example": ""}},
    "space": {"headers": {"Host ": "inside.example"}},
    "value": {"headers": {"X-A": "b\r\nHost: inside.example"}},
    "method": {"method": "GET /inside HTTP/1.1\r\nHost: inside.example\r\n\r\nGET"},
}


@pytest.mark.parametrize("how", FORGED)
async def test_a_request_that_would_be_two_or_go_elsewhere_is_not_sent(how: str) -> None:
    async with peer(OK, OK) as service:
        with pytest.raises(Refused, match=r"^Blocked: "):
            await service.call(**FORGED[how])
        service.targets.register([f"http://127.0.0.1:{service.port}"])
        with pytest.raises(Refused, match=r"^Blocked: "):
            await service.call(**FORGED[how])
    assert service.asked == []


async def test_what_is_not_listed_is_not_connected_to() -> None:
    async with peer(OK) as service:
        port = service.port
        for url in (
            f"http://127.0.0.1:{port}/closed",
            f"http://127.0.0.1:{port}/open/../closed",
            f"http://localhost:{port}/open",
            f"http://2130706433:{port}/open",
            f"http://0x7f.1:{port}/open",
            f"http://[::ffff:127.0.0.1]:{port}/open",
            f"http://open@127.0.0.1:{port}/open",
            f"https://127.0.0.1:{port}/open",
            f"ftp://127.0.0.1:{port}/open",
            "file:///etc/passwd",
            "",
        ):
            with pytest.raises(Refused, match=r"^Blocked: "):
                await service.call(url)
    assert service.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "017700000001"])
async def test_a_number_that_was_listed_is_still_this_machine(host: str) -> None:
    async with peer(OK) as service:
        url = f"http://{host}:{service.port}/"
        out = service.client(url)
        with pytest.raises(NodeFailed):
            await service.call(url, out=out)
        await out.close()
    assert service.connections == 0


async def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """The address that was judged is the one that is connected to; each new one is judged."""
    async with peer(OK) as service:
        url = f"http://rebind.example:{service.port}/"
        private = Answers("127.0.0.1", "127.0.0.2")
        out = service.client(f"private:{url}", resolver=private)
        assert (await service.call(url, out=out)).value["status"] == 200
        await out.close()
        assert private.left == ["127.0.0.2"], "it was resolved once, and connected to that"
        assert service.connections == 1
        public = Answers("127.0.0.1", "8.8.8.8")
        out = service.client(url, resolver=public)
        with pytest.raises(Refused, match=r"'rebind\.example' is in a restricted range"):
            await service.call(url, out=out)
        await out.close()
    assert public.left == ["8.8.8.8"]
    assert service.connections == 1


STEP = {"X-DF-Instance-ID": "0123abcd", "X-Pgflows-Step-Key": "charge#1"}
RECORDED = "HTTP/1.1 {}\nx-pgflows-recorded: {}\ncontent-length: 2"
IN_PLACE = {
    "not found": says("HTTP/1.1 404 Not Found\ncontent-length: 4", b"none"),
    "moved": says("HTTP/1.1 308 Moved\nlocation: /elsewhere\ncontent-length: 0"),
    "unauthorized": says("HTTP/1.1 401 No\ncontent-length: 0"),
    "page": says("HTTP/1.1 200 OK\ncontent-type: text/html\ncontent-length: 4", b"<p/>"),
    "another step": says(RECORDED.format("200 OK", "0123abcd/charge#2"), b"{}"),
    "another run": says(RECORDED.format("200 OK", "ffffffff/charge#1"), b"{}"),
    "server error": says("HTTP/1.1 500 Broken\ncontent-length: 1", b"!"),
    "garbage": says("HELO there"),
    "silence": hang_up,
    "nul": says("HTTP/1.1 200 OK\ncontent-length: 3", b"a\0b"),
    "charset": says(
        "HTTP/1.1 200 OK\ncontent-type: text/plain; charset=undefined\ncontent-length: 1", b"\xff"
    ),
    "half a pair": says(
        "HTTP/1.1 200 OK\ncontent-type: text/plain; charset=utf-7\ncontent-length: 6", b"+2AA-ab"
    ),
    "wait forever": says("HTTP/1.1 429 Busy\nretry-after: nan\ncontent-length: 0"),
}


async def call_step(service: Peer) -> tuple[Any, list[float]]:
    """The result of a step's node, and the pauses between its calls."""
    service.targets.register([f"http://127.0.0.1:{service.port}"])
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    url = f"http://127.0.0.1:{service.port}/steps/charge"
    spec = {"url": url, "method": "POST", "body": "{}", "headers": STEP}
    return (await service.out.call(spec, str, pause)).value, pauses


@pytest.mark.parametrize("how", IN_PLACE)
async def test_step_is_called_again_after_an_answer_that_is_not_the_ledgers(how: str) -> None:
    recorded = says(RECORDED.format("200 OK", "0123abcd/charge#1"), b"{}")
    async with peer(IN_PLACE[how], IN_PLACE[how], recorded) as service:
        service.open = [True, True]
        value, pauses = await call_step(service)
    assert (value["status"], value["body"]) == (200, "{}")
    assert pauses == [0.05, 0.1]
    assert [w.call.step_key for w in service.waiting] == ["charge#1", "charge#1"]
    assert all("\0" not in w.reason for w in service.waiting)


@pytest.mark.parametrize("how", IN_PLACE)
async def test_step_with_an_outcome_in_the_ledger_is_over_whatever_answers(how: str) -> None:
    async with peer(IN_PLACE[how]) as service:
        value, pauses = await call_step(service)
    assert pauses == []
    assert len(service.asked) == 1
    assert "\0" not in value["body"]


@pytest.mark.parametrize("status", ["200 OK", "424 Failed Dependency", "422 No", "413 Large"])
async def test_step_whose_answer_is_the_ledgers_is_not_asked_for_there(status: str) -> None:
    async with peer(says(RECORDED.format(status, "0123abcd/charge#1"), b"{}")) as service:
        await call_step(service)
    assert service.waiting == []


@pytest.mark.parametrize("how", ["sized", "chunked"])
async def test_step_with_a_large_answer_needs_its_status_only(how: str) -> None:
    async with peer(TOO_LARGE[how]) as service:
        value, _ = await call_step(service)
    assert value["status"] == 200
    assert len(value["body"]) <= MOST * 4 / 3 + 4
    assert value["truncated"]


async def test_step_that_is_told_to_come_later_is_called_then() -> None:
    later = says("HTTP/1.1 429 Busy\nretry-after: 7.5\ncontent-length: 0")
    away = says("HTTP/1.1 503 Away\nretry-after: 3600\ncontent-length: 0")
    async with peer(later, away) as service:
        service.open = [True]
        _, pauses = await call_step(service)
    assert pauses == [7.5]
    async with peer(away, OK) as service:
        service.open = [True]
        _, pauses = await call_step(service)
    assert pauses == [0.05], "only a service knows when its step is due"
