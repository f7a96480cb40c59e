"""The engine's own HTTP/1.1 client, against servers that say exactly these bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import uvloop

from pgflows.engine.call.answer import Answer
from pgflows.engine.call.http11 import Http11, TooLarge
from pgflows.engine.call.request import Request
from tests.conftest import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server on loopback that counts its connections and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.asked: list[bytes] = []
        self.client = Http11(1000)

    async def ask(
        self,
        headers: dict[str, str] | None = None,
        body: bytes | None = b"{}",
        seconds: float = 60,
    ) -> Answer:
        request = Request("POST", self.url, urlsplit(self.url), headers or {}, body, seconds)
        return await self.client.call(request)


@asynccontextmanager
async def peer(*answers: bytes, then: Speak | None = None) -> AsyncIterator[Peer]:
    """Answers each request of a connection with the next of these; after the last it closes."""
    found = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            for answer in answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                found.asked.append(head + await reader.readexactly(length))
                writer.write(answer)
                await writer.drain()
            if then is not None:
                await then(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/steps/charge?x=1"
    async with server:
        yield found
        found.client.close()


async def idle(pushes: Http11) -> bool:
    """No connection is open any more."""
    return not any(c.open for free in pushes._free.values() for c in free)


async def arrived(service: Peer, connections: int) -> bool:
    return service.connections >= connections


async def test_a_request_is_what_was_asked_for() -> None:
    async with peer(OK) as service:
        answer = await service.ask({"X-Call": "1"}, b'{"a":1}')
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.header("content-length") == "2"
        head, _, body = service.asked[0].partition(b"\r\n\r\n")
        assert body == b'{"a":1}'
        assert head.split(b"\r\n")[0] == b"POST /steps/charge?x=1 HTTP/1.1"
        assert b"X-Call: 1" in head.split(b"\r\n")
        assert b"host: " + urlsplit(service.url).netloc.encode() in head.split(b"\r\n")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (
            b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            503,
            b"abcde",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
    ],
    ids=["chunked", "empty", "continue", "until-closed", "closing"],
)
async def test_every_framing_is_read(answer: bytes, status: int, body: bytes) -> None:
    async with peer(answer) as service:
        found = await service.ask()
        assert (found.status, found.body) == (status, body)


async def test_connections_are_kept() -> None:
    async with peer(*[OK] * 100) as service:
        for _ in range(3):
            await asyncio.gather(service.ask(), service.ask())
        assert service.connections == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", b"SSH-2.0-OpenSSH\r\n\r\n"],
    ids=["nothing", "half", "not-http"],
)
async def test_what_is_no_answer_is_an_error_and_the_next_call_works(answer: bytes) -> None:
    async with peer(answer) as service:
        for _ in range(3):
            with pytest.raises(OSError, match=r"closed|not HTTP"):
                await service.ask()


async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async with peer(OK) as service:
        for n in range(1, 4):
            assert (await service.ask()).body == b"ok"
            await until(lambda: idle(service.client))
            assert service.connections == n


async def test_an_answer_that_is_too_large_is_cut_off() -> None:
    async with peer(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000) as service:
        with pytest.raises(TooLarge, match="1000"):
            await service.ask()


@asynccontextmanager
async def silent_peer() -> AsyncIterator[tuple[Peer, asyncio.Event]]:
    """Never answers; the event says that its caller has closed the connection."""
    closed = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()

    async with peer(then=listen) as service:
        yield service, closed


async def test_a_caller_that_gives_up_closes_its_connection() -> None:
    async with silent_peer() as (service, closed):
        stuck = asyncio.create_task(service.ask())
        await until(lambda: arrived(service, 1))
        stuck.cancel()
        await asyncio.wait_for(closed.wait(), 5)
        assert await idle(service.client)


async def test_an_answer_that_does_not_come_in_time_closes_the_connection() -> None:
    async with silent_peer() as (service, closed):
        with pytest.raises(TimeoutError):
            await service.ask(seconds=0.05)
        await asyncio.wait_for(closed.wait(), 5)
        assert await idle(service.client)


async def test_nobody_there_is_an_error() -> None:
    async with peer(OK) as service:
        url = service.url
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await Http11(1000).call(Request("POST", url, urlsplit(url), {}, b"", 60))


async def test_a_header_cannot_smuggle_another() -> None:
    async with peer(OK) as service:
        with pytest.raises(ValueError, match="line break"):
            await service.ask({"X-Key": "a\r\nX-Evil: 1"})
        assert service.asked == []


@pytest.mark.parametrize(
    ("url", "takes"),
    [
        ("http://h:8000/steps/a?b=c%20d", True),
        ("https://h/steps/a", False),
        ("http://h/steps/a b", False),
        ("http://h/steps/ü", False),
        ("http://h/steps/a#b", False),
    ],
)
def test_only_plain_urls_are_taken(url: str, takes: bool) -> None:
    assert Http11.takes(Request("POST", url, urlsplit(url), {}, b"", 60)) is takes


def test_it_works_on_the_loop_that_engines_use() -> None:
    async def ask() -> Answer:
        async with peer(OK) as service:
            return await service.ask()

    assert uvloop.run(ask()).body == b"ok"
