"""HTTP/1.1 as the engine's calls to step services need it, on httptools and kept connections.

Calls of steps are most of what an engine does, and a general client costs three times as much for a
call. Whatever is not plain http to a plain URL is left to that client.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

import httptools

from pgflows.engine.call.answer import Answer
from pgflows.engine.call.request import UNSENDABLE, Request

PLAIN = re.compile(r"[!-~]+")


class TooLarge(Exception):
    """The answer has more bytes than the limit, which is the argument."""


class Http11:
    """Connections that are kept for the next call. Callers limit how many there are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: dict[tuple[str, int], list[Connection]] = {}

    @staticmethod
    def takes(request: Request) -> bool:
        """Whether this client can make the call."""
        split = request.split
        plain = PLAIN.fullmatch(request.url) is not None
        return split.scheme == "http" and not split.fragment and plain

    async def call(self, request: Request, *, truncates: bool = False) -> Answer:
        """Raises OSError if nobody answers (TimeoutError: not in time), TooLarge, or ValueError for
        what cannot be sent. An answer that is too large is cut off if `truncates` says so.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + request.timeout
        message = _message(request)
        address = (request.split.hostname or "", request.split.port or 80)
        free = self._free.setdefault(address, [])
        connection = None
        while free and connection is None:
            kept = free.pop()
            connection = kept if kept.open else None
        if connection is None:
            async with asyncio.timeout(request.timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._most), *address
                )
        answer = await connection.exchange(message, until, truncates)
        if connection.open:
            free.append(connection)
        return answer

    def close(self) -> None:
        for free in self._free.values():
            for connection in free:
                connection.close()
        self._free.clear()


def _message(request: Request) -> bytes:
    split, body = request.split, request.body
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    lines = [f"{request.method} {target} HTTP/1.1", f"host: {split.netloc.rpartition('@')[2]}"]
    for name, value in request.headers.items():
        line = f"{name}: {value}"
        if UNSENDABLE.search(line):
            raise ValueError(f"the header {name!r} holds a line break")
        lines.append(line)
    lines.append(f"content-length: {len(body or b'')}\r\n\r\n")
    return "\r\n".join(lines).encode() + (body or b"")


class Connection(asyncio.Protocol):
    """One exchange at a time; an error in it closes the connection."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._transport: asyncio.Transport | None = None
        self._answering: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, message: bytes, until: float, truncates: bool) -> Answer:
        """`until` is a time of the loop. A caller that is cancelled leaves a closed connection."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._chunks, self._size = Answer(), [], 0
        self._truncates = truncates
        loop = asyncio.get_running_loop()
        self._answering = loop.create_future()
        timer = loop.call_at(until, self._fail, TimeoutError())  # cheaper than asyncio.timeout
        self._transport.write(message)
        try:
            return await self._answering
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._answering = None

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not its children

    def data_received(self, data: bytes) -> None:
        if self._answering is None:
            self.close()  # an answer that was not asked for
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._fail(ConnectionResetError(f"the answer is not HTTP: {e}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answering is None:
            return
        if exc is None and self._answer.status and not self._sized():
            self._finish()
        else:
            self._fail(exc or ConnectionResetError("the connection was closed without an answer"))

    def _sized(self) -> bool:
        return any(k in ("content-length", "transfer-encoding") for k, _ in self._answer.headers)

    # -- what the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self._most:
            self._chunks.append(body)
        elif self._truncates:
            self._chunks.append(body)
            self._answer.truncated = True
            self._finish()
            self.close()
        else:
            self._fail(TooLarge(self._most))

    def on_message_complete(self) -> None:
        if self._answer.status < 200:  # an interim answer; the real one follows
            self._answer = Answer()
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._finish()

    def _finish(self) -> None:
        self._answer.body = b"".join(self._chunks)[: self._most]
        if self._answering is not None and not self._answering.done():
            self._answering.set_result(self._answer)

    def _fail(self, error: Exception) -> None:
        if self._answering is not None and not self._answering.done():
            self._answering.set_exception(error)
        self.close()
