"""Foreign services that engines call and that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from aiohttp import web

from tests.acceptance.runs import Runs

Answer: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serving(**answers: Answer) -> AsyncIterator[str]:
    """The URL of a service with a path per answer. A handler ends when its caller leaves."""
    app = web.Application()
    for name, answer in answers.items():
        app.router.add_post(f"/{name}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def serving_steps(runs: Runs, **answers: Answer) -> AsyncIterator[str]:
    """The same at a registered base URL, so that failed calls are made again."""
    async with serving(**answers) as url:
        await runs.conn.execute("insert into pgflows.base_urls (url) values ($1)", url)
        yield url


class Peer:
    """Counts its calls, and those that are open, and answers as its paths say."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = 0
        self.told = asyncio.Event()

    async def never(self, _request: web.Request) -> web.Response:
        """No answer, until the caller leaves."""
        self.calls += 1
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1
        return web.Response()

    async def when_told(self, _request: web.Request) -> web.Response:
        """An answer once the test sets `told`."""
        self.calls += 1
        await self.told.wait()
        return web.Response(text="at last")

    async def later(self, _request: web.Request) -> web.Response:
        """Each time, a request to come again in a second."""
        self.calls += 1
        return web.Response(status=503, headers={"Retry-After": "1"})

    async def second(self, request: web.Request) -> web.Response:
        """No answer to the first call, one to every other."""
        if self.calls == 0:
            return await self.never(request)
        self.calls += 1
        return web.Response(text="now")

    async def in_4_seconds(self, _request: web.Request) -> web.Response:
        """A request to come again in 4 seconds to the first call, an answer to every other."""
        self.calls += 1
        if self.calls == 1:
            return web.Response(status=429, headers={"Retry-After": "4"})
        return web.Response(text="now")
