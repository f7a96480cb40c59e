"""What HTTP nodes may call: registered base URLs of steps, and the prefixes that a setting lists.

A name that a listed prefix holds must not resolve to an address of a private network, this machine
or a cloud's metadata service, unless the entry says so (`private:http://inventory.internal/`) or
holds the address itself. The address that was checked is the one that is connected to.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

PRIVATE = "private:"


class Targets:
    """Base URLs (called again on infrastructure failures) and listed prefixes."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        entries = list(prefixes)
        self._prefixes = [urlsplit(p.removeprefix(PRIVATE)) for p in entries]
        self._inner = {
            urlsplit(p.removeprefix(PRIVATE)).hostname
            for p in entries
            if p.startswith(PRIVATE) or urlsplit(p).hostname == "localhost"
        }
        self._bases: list[SplitResult] = []

    def register(self, base_urls: Iterable[str]) -> None:
        self._bases = [urlsplit(u) for u in base_urls]

    def is_step(self, url: str) -> bool:
        return _within_any(url, self._bases)

    def is_listed(self, url: str) -> bool:
        return _within_any(url, self._prefixes)

    def may_be_private(self, host: str) -> bool:
        """True where the deployment named this host as one of its own network."""
        return host in self._inner or any(base.hostname == host for base in self._bases)


def _within_any(url: str, prefixes: Iterable[SplitResult]) -> bool:
    try:
        split = urlsplit(url)
    except ValueError:
        return False
    return any(_within(split, prefix) for prefix in prefixes)


def _within(url: SplitResult, prefix: SplitResult) -> bool:
    """Same scheme, host and port, no credentials, and the path below the prefix's path."""
    try:
        same = (url.scheme, url.hostname, _port(url)) == (
            prefix.scheme,
            prefix.hostname,
            _port(prefix),
        )
    except ValueError:
        return False
    if not same or url.username is not None or _climbs(url.path):
        return False
    path = prefix.path.rstrip("/")
    return url.path == path or url.path.startswith(f"{path}/") or not path


def _port(url: SplitResult) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _climbs(path: str) -> bool:
    """Dot segments, plain or escaped, would leave the prefix."""
    parts = path.lower().replace("%2e", ".").replace("%2f", "/").replace("\\", "/").split("/")
    return ".." in parts


class NotPublic(OSError):
    """A name with addresses that it has no business to have."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and drops the addresses that the name has no business to have."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._targets.may_be_private(host):
            return found
        public = [entry for entry in found if ip_address(entry["host"]).is_global]
        if not public:
            raise NotPublic(
                f"{host} resolves to addresses that are not public; list it as {PRIVATE}<prefix> "
                "in PGFLOWS_HTTP_TARGETS if that is meant"
            )
        return public

    async def close(self) -> None:
        await self._resolver.close()
