"""What HTTP nodes may call: registered base URLs of steps, and the prefixes that a setting lists.

The host name of a listed prefix must not resolve to an address of a private network, this machine
or a cloud's metadata service, unless the entry says so (`private:http://inventory.internal/`) or
the host is an address. The address that was checked is the one that is connected to.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PRIVATE = "private:"
MOST_KNOWN = 1000  # URLs
NAT64 = IPv6Network("64:ff9b::/96")
# What older versions of `ipaddress` call public, and the address of Azure's own services.
RESERVED = tuple(
    map(ip_network, ("192.0.0.0/24", "168.63.129.16/32", "::/96", "64:ff9b:1::/48", "fec0::/10"))
)


class Targets:
    """The registered base URLs of steps, and the listed prefixes."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        entries = list(prefixes)
        self._prefixes = [urlsplit(p.removeprefix(PRIVATE)) for p in entries]
        self._inner = {
            urlsplit(p.removeprefix(PRIVATE)).hostname
            for p in entries
            if p.startswith(PRIVATE) or urlsplit(p).hostname == "localhost"
        }
        self._bases: list[SplitResult] = []
        self._steps: dict[str, bool] = {}  # by URL; there are few

    def register(self, base_urls: Iterable[str]) -> None:
        self._bases = [urlsplit(u) for u in base_urls]
        self._steps.clear()

    def is_step(self, url: str) -> bool:
        known = self._steps.get(url)
        if known is None:
            if len(self._steps) >= MOST_KNOWN:
                self._steps.clear()
            known = self._steps[url] = _within_any(url, self._bases)
        return known

    def is_listed(self, url: str) -> bool:
        return _within_any(url, self._prefixes)

    def may_be_private(self, host: str) -> bool:
        """True if the deployment named this host as one of its own network."""
        return host in self._inner or any(base.hostname == host for base in self._bases)


def refusal(url: str) -> str:
    """What to tell of a URL that may not be called, in words that handlers look for."""
    scheme, found, _ = url.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return f"Blocked: unsupported URL scheme '{scheme}'. Only http and https are allowed."
    rest = "neither a registered base URL of steps nor below a prefix of PGFLOWS_HTTP_TARGETS"
    host = _host(url)
    if host is None:
        return f"Blocked: unable to extract hostname from URL {url}"
    if _is_address(host):
        return f"Blocked: requests to bare IP addresses are not permitted: {url} is {rest}"
    return f"Blocked: '{host}' is not in the allowed endpoint list: {url} is {rest}"


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _within_any(url: str, prefixes: Iterable[SplitResult]) -> bool:
    if CONTROL.search(url):  # urlsplit removes some of these, other parsers keep them
        return False
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
    return {"http": 80, "https": 443}.get(url.scheme) if url.port is None else url.port


def _climbs(path: str) -> bool:
    """Dot segments would leave the prefix: plain, escaped (also twice), or with parameters."""
    for _ in range(3):
        before, path = path, unquote(path)
        if path == before:
            break
    else:
        return True  # escaped more often than an honest URL is
    return any(p.partition(";")[0].strip() == ".." for p in path.replace("\\", "/").split("/"))


def _is_public(host: str) -> bool:
    """True for an address of the internet; an IPv4 address inside it is checked too."""
    address = ip_address(host.partition("%")[0])
    if not _is_global(address):
        return False
    if isinstance(address, IPv4Address):
        return True
    inner = address.ipv4_mapped or address.sixtofour
    if address in NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        inner = address.teredo[1]
    return inner is None or _is_global(inner)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    reserved = any(address in network for network in RESERVED)
    return address.is_global and not address.is_multicast and not reserved


class NotPublic(OSError):
    """A name resolves to addresses that are not public."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and drops the addresses that the name must not have."""

    def __init__(self, targets: Targets, resolver: AbstractResolver | None = None) -> None:
        self._targets = targets
        self._resolver = resolver or DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._targets.may_be_private(host):
            return found
        public = [entry for entry in found if _is_public(entry["host"])]
        if not public:
            raise NotPublic(
                f"the resolved IP address for '{host}' is in a restricted range: it is not public; "
                f"list it as {PRIVATE}<prefix> in PGFLOWS_HTTP_TARGETS if that is meant"
            )
        return public

    async def close(self) -> None:
        await self._resolver.close()
