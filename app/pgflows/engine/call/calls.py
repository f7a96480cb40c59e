"""HTTP nodes: who may be called, the call, and calling again while a step service is away."""

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

from pgflows.engine.call import multipart
from pgflows.engine.call.http11 import UNSENDABLE, Answer, Pushes, TooLarge
from pgflows.engine.call.targets import GuardedResolver, NotPublic, Targets, refusal
from pgflows.engine.limiter import Gate
from pgflows.engine.node.results import NodeFailed, Refused, Result, storable

AGAIN = frozenset({409, 429, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Another host behind the same address, or a second request inside the first one's body.
FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"}
    | {"trailer", "keep-alive", "proxy-connection", "proxy-authorization"}
)
TEXTUAL = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv")


class Outbound:
    """The engine's HTTP client: connections are reused, redirects are answers, not instructions."""

    def __init__(
        self,
        targets: Targets,
        most: int,
        connections: int = 100,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self.targets = targets
        self._most = most
        self._connections = connections
        self._gates: dict[str, Gate] = {}
        self._pushes = Pushes(most)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=60,
                resolver=GuardedResolver(targets, resolver),
            ),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # the node's own is about the whole call
        )
        # a kept connection that the peer closes in mid-call would have GET, PUT and DELETE repeated
        self._session._retry_connection = False
        self.calls = 0
        self.repeats = 0

    async def close(self) -> None:
        self._pushes.close()
        await self._session.close()

    async def call(
        self,
        spec: Mapping[str, Any],
        fill: Callable[[str], str],
        pause: Callable[[float], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
    ) -> Result:
        """One HTTP node. `fill` puts variables in, `pause` waits before another call, `refresh`
        re-reads the registered base URLs.

        Calls to a registered base URL are repeated until they are answered: the service may be
        away, busy with the same step, or asking for a later attempt. Raises NodeFailed in the
        contract's words.
        """
        url, method = fill(spec["url"]), spec["method"]
        headers = {k: fill(str(v)) for k, v in (spec.get("headers") or {}).items()}
        _check_request(url, method, headers)
        data = fill(spec["body"]).encode() if spec.get("body") is not None else None
        if (parts := spec.get("parts")) is not None:
            headers["Content-Type"], data = multipart.encode(parts, fill)
        timeout = spec.get("timeout_seconds") or 30
        step = self.targets.is_step(url)
        if not step and not self.targets.is_listed(url):
            await refresh()
            step = self.targets.is_step(url)
        if not step and not self.targets.is_listed(url):
            raise Refused(refusal(url))
        split, seconds = urlsplit(url), FIRST_PAUSE
        while True:
            try:
                gate = await self._turn(split, pause)
                try:
                    status, result, wait = await self._once(
                        method, url, split, data, headers, timeout, step
                    )
                finally:
                    gate.release()
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

    async def _turn(self, url: SplitResult, pause: Callable[[float], Awaitable[None]]) -> Gate:
        """One of the places at this server, to be released. The time-out of a call does not run
        meanwhile, and who waits for long does it outside of memory: a slow server must not fill
        the engine.
        """
        gate = self._gates.get(url.netloc)
        if gate is None:
            gate = self._gates[url.netloc] = Gate(self._connections)
        while not await gate.enter():
            await pause(LONGEST_PAUSE)
        return gate

    def crowded(self, enough: int) -> bool:
        """Whether a server that answers in good time has this many more calls waiting for it."""
        return any(gate.crowded(enough) for gate in self._gates.values())

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
        """Status, result and Retry-After in seconds; Unanswered where there is no answer."""
        self.calls += 1
        began = time.monotonic()
        try:
            if step and self._pushes.takes(url, split):
                answer = await self._pushes.call(method, split, headers, body, seconds)
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
    """What would let a call reach more than its URL says is refused."""
    if method not in METHODS:
        raise Refused(f"Blocked: {method!r} is no method of an HTTP node")
    for name, value in headers.items():
        if not _may_set(name):
            raise Refused(f"Blocked: a node may not set the header {name!r} ({url})")
        if UNSENDABLE.search(value):
            raise Refused(f"Blocked: the header {name!r} holds a line break ({url})")


@lru_cache(maxsize=1000)
def _may_set(header: str) -> bool:
    return header.lower() not in FRAMING and TOKEN.fullmatch(header) is not None


class Unanswered(NodeFailed):
    """Nobody answered: no connection, or no answer in time."""


def _decode(raw: bytes, content_type: str | None) -> tuple[str, str]:
    """Text where the content type says so (UTF-8 unless it names a charset), else base64."""
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
        return min(max(float(header), 0.0), 86_400.0) if header else None
    except ValueError:
        return None
