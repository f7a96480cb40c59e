"""The request of an HTTP node, with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pgflows.engine.call import multipart
from pgflows.engine.node.results import Refused

DEFAULT_TIMEOUT = 30  # seconds for a whole call
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
UNSENDABLE = re.compile(r"[\r\n\0]")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These could name another host behind the same address, or hide a second request in the body.
FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"}
    | {"trailer", "keep-alive", "proxy-connection", "proxy-authorization"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. `timeout` is the seconds for the whole call."""

    method: str
    url: str
    split: SplitResult
    headers: Mapping[str, str]
    body: bytes | None
    timeout: float


def request_of(spec: Mapping[str, Any], fill: Callable[[str], str]) -> Request:
    """`fill` puts variables in. Raises Refused if the request could reach more than its URL says,
    NodeFailed if a part of it cannot be encoded.
    """
    url, method = fill(spec["url"]), spec["method"]
    headers = {k: fill(str(v)) for k, v in (spec.get("headers") or {}).items()}
    _check(url, method, headers)
    body = fill(spec["body"]).encode() if spec.get("body") is not None else None
    if (parts := spec.get("parts")) is not None:
        headers["Content-Type"], body = multipart.encode(parts, fill)
    timeout = spec.get("timeout_seconds") or DEFAULT_TIMEOUT
    return Request(method, url, _split(url), headers, body, timeout)


@lru_cache(maxsize=1000)
def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")  # it is below no base URL and no listed prefix


def _check(url: str, method: str, headers: Mapping[str, str]) -> None:
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
