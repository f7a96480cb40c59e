"""HTTP nodes: who may be called, the call, and calling again while a step service is away."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from pgflows.engine import multipart
from pgflows.engine.results import NodeFailed, Result, storable
from pgflows.engine.targets import GuardedResolver, NotPublic, Targets

AGAIN = frozenset({409, 429, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
TURN_SECONDS = 2.0
TEXTUAL = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv")


class Outbound:
    """The engine's HTTP client: connections are reused, redirects are answers, not instructions."""

    def __init__(self, targets: Targets, most: int, connections: int = 100) -> None:
        self.targets = targets
        self._most = most
        self._connections = connections
        self._gates: dict[tuple[str, str], asyncio.Semaphore] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=connections,
                keepalive_timeout=60,
                resolver=GuardedResolver(targets),
            ),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self.calls = 0
        self.repeats = 0

    async def close(self) -> None:
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
        data = fill(spec["body"]).encode() if spec.get("body") is not None else None
        if (parts := spec.get("parts")) is not None:
            headers["Content-Type"], data = multipart.encode(parts, fill)
        timeout = spec.get("timeout_seconds") or 30
        if not self.targets.is_step(url) and not self.targets.is_listed(url):
            await refresh()
        step = self.targets.is_step(url)
        if not step and not self.targets.is_listed(url):
            raise NodeFailed(
                f"Blocked: {url} is neither a registered base URL of steps nor below a prefix of "
                "the setting PGFLOWS_HTTP_TARGETS"
            )
        seconds = FIRST_PAUSE
        while True:
            try:
                async with self._turn(url, pause):
                    status, result, wait = await self._once(method, url, data, headers, timeout)
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

    @asynccontextmanager
    async def _turn(
        self, url: str, pause: Callable[[float], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """One of the connections to this server. The time-out of a call does not run meanwhile,
        and who waits for long does it outside of memory: a slow server must not fill the engine.
        """
        split = urlsplit(url)
        gate = self._gates.setdefault(
            (split.scheme, split.netloc), asyncio.Semaphore(self._connections)
        )
        while True:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await gate.acquire()
                break
            except TimeoutError:
                await pause(LONGEST_PAUSE)
        try:
            yield
        finally:
            gate.release()

    async def _once(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], seconds: float
    ) -> tuple[int, Result, float | None]:
        """Status, result and Retry-After in seconds; Unanswered where there is no answer."""
        self.calls += 1
        began = time.monotonic()
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as answer:
                raw = await _read(answer, self._most)
        except TooLarge as e:
            raise NodeFailed(
                f"HTTP {method} {url}: the answer is larger than {e} bytes, the limit of the "
                "setting PGFLOWS_HTTP_MAX_RESPONSE"
            ) from None
        except TimeoutError:
            raise Unanswered(f"HTTP timeout after {seconds}s: {url}") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            if isinstance(reason := getattr(e, "os_error", None), NotPublic):
                raise NodeFailed(f"Blocked: {reason}") from e
            raise Unanswered(
                f"HTTP connection failed: {url} - error sending request for url ({url})"
            ) from e
        text, encoding = _decode(raw, answer.headers.get("content-type"))
        result = Result.of(
            {
                "status": answer.status,
                "body": text,
                "encoding": encoding,
                "headers": {k.lower(): v for k, v in answer.headers.items()},
                "ok": 200 <= answer.status < 300,
                "duration_ms": round((time.monotonic() - began) * 1000),
            }
        )
        return answer.status, result, _seconds(answer.headers.get("retry-after"))


class TooLarge(Exception):
    """The answer has more bytes than this."""


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    chunks, size = [], 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > most:
            raise TooLarge(most)
        chunks.append(chunk)
    return b"".join(chunks)


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
