"""The calls of HTTP nodes, and calling again while a step service is away."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from pgflows.crash import crash_point
from pgflows.engine.call import multipart
from pgflows.engine.call.base_urls import BaseUrls
from pgflows.engine.call.http11 import UNSENDABLE, Answer, Http11, TooLarge
from pgflows.engine.call.targets import GuardedResolver, NotPublic, refusal
from pgflows.engine.limiter import Limiter
from pgflows.engine.node.results import NodeFailed, Refused, Result, storable

AGAIN = frozenset({409, 429, 502, 503, 504})
FIRST_PAUSE = 0.05  # seconds before a call is repeated; doubled each time
LONGEST_PAUSE = 5.0  # seconds
LONGEST_RETRY_AFTER = 86_400.0  # seconds
DEFAULT_TIMEOUT = 30  # seconds for a whole call
KEEP_ALIVE = 60  # seconds that an unused connection is kept
CONNECTIONS = 100  # calls at once to one server
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These could name another host behind the same address, or hide a second request in the body.
FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"}
    | {"trailer", "keep-alive", "proxy-connection", "proxy-authorization"}
)
TEXTUAL = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv")


class Calls:
    """The engine's HTTP client. Connections are reused; redirects are answers and not followed."""

    def __init__(
        self, base_urls: BaseUrls, most: int, resolver: AbstractResolver | None = None
    ) -> None:
        self._base_urls = base_urls
        self._targets = base_urls.targets
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
        self,
        spec: Mapping[str, Any],
        fill: Callable[[str], str],
        pause: Callable[[float], Awaitable[None]],
    ) -> Result:
        """One HTTP node. `fill` puts variables in, `pause` waits before another call.

        Calls to a registered base URL are repeated until they are answered: the service may be
        away, busy with the same step, or asking for a later attempt. Raises NodeFailed in the
        contract's words.
        """
        result = await self._call(spec, fill, pause)
        crash_point("after_answer")
        return result

    async def _call(
        self,
        spec: Mapping[str, Any],
        fill: Callable[[str], str],
        pause: Callable[[float], Awaitable[None]],
    ) -> Result:
        url, method = fill(spec["url"]), spec["method"]
        headers = {k: fill(str(v)) for k, v in (spec.get("headers") or {}).items()}
        _check_request(url, method, headers)
        data = fill(spec["body"]).encode() if spec.get("body") is not None else None
        if (parts := spec.get("parts")) is not None:
            headers["Content-Type"], data = multipart.encode(parts, fill)
        timeout = spec.get("timeout_seconds") or DEFAULT_TIMEOUT
        step = self._targets.is_step(url)
        if not step and not self._targets.is_listed(url):
            await self._base_urls.refresh()
            step = self._targets.is_step(url)
        if not step and not self._targets.is_listed(url):
            raise Refused(refusal(url))
        split, seconds = urlsplit(url), FIRST_PAUSE
        while True:
            try:
                limiter = await self._enter(split, pause)
                try:
                    status, result, wait = await self._once(
                        method, url, split, data, headers, timeout, step
                    )
                finally:
                    limiter.release()
            except Unanswered:
                if not step:
                    raise
                wait = None
            else:
                if not (step and status in AGAIN):
                    break
            self.repeats += 1
            await pause(seconds if wait is None else wait)
            seconds = min(seconds * 2, LONGEST_PAUSE)
        if status >= 500:
            raise NodeFailed(f"HTTP {method} {url} returned {status}: {result.value['body']}")
        storable(result.text)
        return result

    async def _enter(self, url: SplitResult, pause: Callable[[float], Awaitable[None]]) -> Limiter:
        """Takes a slot of this server; the caller releases it.

        The time-out of the call does not run meanwhile. A long wait takes place outside of memory,
        so a slow server does not fill the engine.
        """
        limiter = self._limiters.get(url.netloc)
        if limiter is None:
            limiter = self._limiters[url.netloc] = Limiter(CONNECTIONS)
        while not await limiter.enter():
            await pause(LONGEST_PAUSE)
        return limiter

    def crowded(self, limit: int) -> bool:
        """Whether more calls than this wait for a server that answers in good time."""
        return any(limiter.crowded(limit) for limiter in self._limiters.values())

    async def _once(
        self,
        method: str,
        url: str,
        split: SplitResult,
        body: bytes | None,
        headers: dict[str, str],
        seconds: float,
        step: bool,
    ) -> tuple[int, Result, float | None]:
        """Status, result and Retry-After in seconds. Raises Unanswered if there is no answer."""
        self.calls += 1
        began = time.monotonic()
        try:
            if step and self._http11.takes(url, split):
                answer = await self._http11.call(method, split, headers, body, seconds)
            else:
                async with asyncio.timeout(seconds):
                    answer = await self._ask(method, url, headers, body)
        except TooLarge as e:
            raise NodeFailed(
                f"HTTP {method} {url}: the answer is larger than {e} bytes, the limit of the "
                "setting PGFLOWS_HTTP_MAX_RESPONSE"
            ) from None
        except TimeoutError:
            raise Unanswered(f"HTTP timeout after {seconds}s: {url}") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            if step and isinstance(e, ValueError):
                raise NodeFailed(f"HTTP {method} {url} cannot be sent: {e}") from e
            if isinstance(reason := getattr(e, "os_error", None), NotPublic):
                raise Refused(f"Blocked: {reason}") from e
            raise Unanswered(
                f"HTTP connection failed: {url} - error sending request for url ({url})"
            ) from e
        text, encoding = _decode(answer.body, answer.header("content-type"))
        result = Result.of(
            {
                "status": answer.status,
                "body": text,
                "encoding": encoding,
                "headers": dict(answer.headers),
                "ok": 200 <= answer.status < 300,
                "duration_ms": round((time.monotonic() - began) * 1000),
            }
        )
        return answer.status, result, _seconds(answer.header("retry-after"))

    async def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        async with self._session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            raw = await _read(answer, self._most)
        found = [(k.lower(), v) for k, v in answer.headers.items()]
        return Answer(answer.status, found, raw)


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    chunks, size = [], 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > most:
            raise TooLarge(most)
        chunks.append(chunk)
    return b"".join(chunks)


def _check_request(url: str, method: str, headers: Mapping[str, str]) -> None:
    """Refuses what would let a call reach more than its URL says."""
    if method not in METHODS:
        raise Refused(f"Blocked: {method!r} is not a method of an HTTP node")
    for name, value in headers.items():
        if not _may_set(name):
            raise Refused(f"Blocked: a node may not set the header {name!r} ({url})")
        if UNSENDABLE.search(value):
            raise Refused(f"Blocked: the header {name!r} holds a line break ({url})")


@lru_cache(maxsize=1000)
def _may_set(header: str) -> bool:
    return header.lower() not in FRAMING and TOKEN.fullmatch(header) is not None


class Unanswered(NodeFailed):
    """There was no connection, or no answer in time."""


def _decode(raw: bytes, content_type: str | None) -> tuple[str, str]:
    """Text if the content type says so (UTF-8 unless it names a charset), otherwise base64."""
    kind, _, parameters = (content_type or "").lower().partition(";")
    if not kind or any(word in kind for word in TEXTUAL):
        charset = parameters.partition("charset=")[2].split(";")[0].strip(' "') or "utf-8"
        try:
            return raw.decode(charset), "text"
        except LookupError:
            return raw.decode("utf-8", "replace"), "text"
        except UnicodeDecodeError:
            if kind:
                return raw.decode("utf-8", "replace"), "text"
    return base64.b64encode(raw).decode(), "base64"


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), LONGEST_RETRY_AFTER) if header else None
    except ValueError:
        return None
