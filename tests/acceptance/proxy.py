"""Something between engines and a service: it passes requests on, or answers in place of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HANG_UP = b""


class Proxy:
    """A server on loopback. While `instead` is set it answers every request with these bytes; while
    `swallows` is true the service gets the request and the proxy keeps its answer.
    """

    def __init__(self, service_port: int) -> None:
        self.port = 0
        self.service_port = service_port
        self.instead: bytes | None = None
        self.swallows = False
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            body = await reader.readexactly(length)
            self.asked += 1
            instead = self.instead
            if instead is None or self.swallows:
                answer = await self._pass_on(head, body)
                instead = answer if instead is None else instead
            writer.write(instead)
            await writer.drain()
        writer.close()

    async def _pass_on(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service_port)
        writer.write(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + body)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def proxy_before(service_port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(service_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
