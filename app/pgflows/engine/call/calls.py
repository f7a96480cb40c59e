"""The calls of HTTP nodes, and calling again while a step has no outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from pgflows.crash import crash_point
from pgflows.engine.call.answer import Answer
from pgflows.engine.call.base_urls import BaseUrls
from pgflows.engine.call.http11 import Http11, TooLarge
from pgflows.engine.call.request import Request, request_of
from pgflows.engine.call.steps import StepCall, StepCalls, step_call
from pgflows.engine.call.targets import GuardedResolver, NotPublic, refusal
from pgflows.engine.limiter import Limiter
from pgflows.engine.node.results import NodeFailed, Refused, Result, storable

BUSY = 429  # its Retry-After is the service's own
AGAIN = frozenset({409, BUSY, 502, 503, 504})  # of calls to a base URL that are not of a step
FIRST_PAUSE = 0.05  # seconds before a call is repeated; doubled each time
LONGEST_PAUSE = 5.0  # seconds
KEEP_ALIVE = 60  # seconds that an unused connection is kept
CONNECTIONS = 100  # calls at once to one server

Pause = Callable[[float], Awaitable[None]]


class Unanswered(NodeFailed):
    """There was no connection, or no answer in time."""


class Calls:
    """The engine's HTTP client. Connections are reused; redirects are answers and not followed."""

    def __init__(
        self,
        base_urls: BaseUrls,
        steps: StepCalls,
        most: int,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._base_urls = base_urls
        self._targets = base_urls.targets
        self._steps = steps
        self._most = most
        self._limiters: dict[str, Limiter] = {}
        self._http11 = Http11(most)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE,
                resolver=GuardedResolver(self._targets, resolver),
            ),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # the node's own covers the whole call
        )
        # aiohttp would repeat GET, PUT and DELETE if the peer closed a kept connection
        self._session._retry_connection = False
        self.calls = 0
        self.repeats = 0

    async def close(self) -> None:
        self._http11.close()
        await self._session.close()

    async def call(
        self, spec: Mapping[str, Any], fill: Callable[[str], str], pause: Pause
    ) -> Result:
        """One HTTP node. `fill` puts variables in, `pause` waits before another call.

        A step at a registered base URL is called until the ledger has its outcome, whatever
        answers. Other calls to such a URL are repeated while the service is away or busy. Raises
        NodeFailed in the contract's words.
        """
        request = request_of(spec, fill)
        at_base = await self._is_at_base(request.url)
        step = step_call(request.headers) if at_base else None
        if step is not None:
            result = await self._call_step(request, step, pause)
        elif at_base:
            result = await self._call_service(request, pause)
        else:
            result = _checked(request, *await self._once(request, pause))
        crash_point("after_answer")
        return result

    async def _is_at_base(self, url: str) -> bool:
        """Raises Refused if the URL may not be called at all."""
        for attempt in range(2):
            if self._targets.is_step(url):
                return True
            if self._targets.is_listed(url):
                return False
            if attempt == 0:
                await self._base_urls.refresh()
        raise Refused(refusal(url))

    async def _call_step(self, request: Request, step: StepCall, pause: Pause) -> Result:
        """Until the ledger has the outcome. The node's result is the last answer, whatever it is:
        what follows reads the ledger.
        """
        seconds = FIRST_PAUSE
        while True:
            try:
                answer, took = await self._once(request, pause, step)
                reason = f"HTTP {answer.status}: {answer.text()[0]}"
            except Unanswered as e:
                answer, took, reason = Answer(body=e.message.encode()), 0.0, e.message
            if step.is_recorded(answer) or not await self._steps.must_repeat(
                step, request.url, reason
            ):
                return answer.result(took, storable=True)
            wait = answer.retry_after() if answer.status == BUSY else None
            await self._pause_before_repeat(seconds if wait is None else wait, pause)
            seconds = min(seconds * 2, LONGEST_PAUSE)

    async def _call_service(self, request: Request, pause: Pause) -> Result:
        """Until there is an answer that is not about the service's being away or busy."""
        seconds = FIRST_PAUSE
        while True:
            wait = None
            try:
                answer, took = await self._once(request, pause)
                if answer.status not in AGAIN:
                    return _checked(request, answer, took)
                wait = answer.retry_after()
            except Unanswered:
                pass  # the service may come back
            await self._pause_before_repeat(seconds if wait is None else wait, pause)
            seconds = min(seconds * 2, LONGEST_PAUSE)

    async def _pause_before_repeat(self, seconds: float, pause: Pause) -> None:
        self.repeats += 1
        await pause(seconds)

    async def _enter(self, server: str, pause: Pause) -> Limiter:
        """Takes a slot of this server; the caller releases it.

        The time-out of the call does not run meanwhile. A long wait takes place outside of memory,
        so a slow server does not fill the engine.
        """
        limiter = self._limiters.get(server)
        if limiter is None:
            limiter = self._limiters[server] = Limiter(CONNECTIONS)
        while not await limiter.enter():
            await pause(LONGEST_PAUSE)
        return limiter

    def crowded(self, limit: int) -> bool:
        """Whether more calls than this wait for a server that answers in good time."""
        return any(limiter.crowded(limit) for limiter in self._limiters.values())

    async def _once(
        self, request: Request, pause: Pause, step: StepCall | None = None
    ) -> tuple[Answer, float]:
        """The answer and how many seconds it took. Raises Unanswered if there is none.

        The status of a step's answer is enough: it may be cut off where it is too large.
        """
        limiter = await self._enter(request.split.netloc, pause)
        self.calls += 1
        began = time.monotonic()
        try:
            answer = await self._ask(request, truncates=step is not None)
        except TooLarge as e:
            raise NodeFailed(
                f"HTTP {request.method} {request.url}: the answer is larger than {e} bytes, the "
                "limit of the setting PGFLOWS_HTTP_MAX_RESPONSE"
            ) from None
        except TimeoutError:
            raise Unanswered(f"HTTP timeout after {request.timeout}s: {request.url}") from None
        except (aiohttp.ClientError, OSError) as e:
            if isinstance(reason := getattr(e, "os_error", None), NotPublic):
                raise Refused(f"Blocked: {reason}") from e
            url = request.url
            raise Unanswered(
                f"HTTP connection failed: {url} - error sending request for url ({url})"
            ) from e
        except ValueError as e:
            raise NodeFailed(f"HTTP {request.method} {request.url} cannot be sent: {e}") from e
        finally:
            limiter.release()
        return answer, time.monotonic() - began

    async def _ask(self, request: Request, *, truncates: bool) -> Answer:
        if self._targets.is_step(request.url) and self._http11.takes(request):
            return await self._http11.call(request, truncates=truncates)
        async with (
            asyncio.timeout(request.timeout),
            self._session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as answer,
        ):
            body, truncated = await _read(answer, self._most, truncates)
        found = [(k.lower(), v) for k, v in answer.headers.items()]
        return Answer(answer.status, found, body, truncated)


async def _read(answer: aiohttp.ClientResponse, most: int, truncates: bool) -> tuple[bytes, bool]:
    """The body, and whether it was cut off. Raises TooLarge."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > most:
            if not truncates:
                raise TooLarge(most)
            answer.close()
            return b"".join([*chunks, chunk])[:most], True
        chunks.append(chunk)
    return b"".join(chunks), False


def _checked(request: Request, answer: Answer, took: float) -> Result:
    """The result of a node that is not a step. Raises NodeFailed for a server's error."""
    if answer.status >= 500:
        raise NodeFailed(
            f"HTTP {request.method} {request.url} returned {answer.status}: {answer.text()[0]}"
        )
    result = answer.result(took)
    storable(result.text)
    return result
