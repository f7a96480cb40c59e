"""Which names a service without API keys answers to, so that no web page can use it.

A browser on this machine reaches the loopback address for every page it shows. A page that asks
under its own name (DNS rebinding) has that name in `Host`; a page that asks across origins has its
own in `Origin`. Pages of this service have neither.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from pgflows.config import is_loopback
from pgflows.errors import Forbidden

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\[\]:/?#@\s]+)(:(?P<port>[0-9]*))?", re.IGNORECASE)

_HINT = (
    "Ask at localhost or a loopback address, add the name to PGFLOWS_ALLOWED_HOSTS, or set "
    "PGFLOWS_API_KEYS."
)


def check_names(host: str | None, origin: str | None, allowed: Collection[str]) -> None:
    """Raise Forbidden if the request names another host, or comes from a page of another one."""
    found = _HOST.fullmatch(host or "")
    if found is None or not _is_known(found["name"], allowed):
        raise Forbidden(
            f"Without API keys there is no answer to the host name {host!r}.", hint=_HINT
        )
    if origin is not None and not _is_own(origin, found["port"], allowed):
        raise Forbidden(f"Without API keys there is no answer to pages of {origin!r}.", hint=_HINT)


def _is_known(name: str, allowed: Collection[str]) -> bool:
    name = name.strip("[]").lower().removesuffix(".")
    return name == "localhost" or is_loopback(name) or name in allowed


def _is_own(origin: str, port: str | None, allowed: Collection[str]) -> bool:
    """Whether an origin is a listed host, or this machine at the port that was asked."""
    try:
        url = urlsplit(origin)
        own_port = str(url.port or 80) == (port or "80")
    except ValueError:
        return False
    name = (url.hostname or "").removesuffix(".")
    return name in allowed or (url.scheme == "http" and own_port and _is_known(name, ()))
