"""Connection strings: what of them is shown, and the same string for another role."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit, urlunsplit


def as_role(dsn: str, role: str, password: str | None) -> str:
    """The DSN with another user. A user or password among the query parameters is replaced too."""
    url = urlsplit(dsn)
    host = url.netloc.rpartition("@")[2]
    user = quote(role, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = "&".join(
        part
        for part in url.query.split("&")
        if part and part.split("=")[0] not in ("user", "password")
    )
    return urlunsplit(url._replace(netloc=f"{user}@{host}", query=query))


def shown(dsn: str) -> str:
    """A DSN without user and password."""
    url = urlsplit(dsn)
    host = url.netloc.rpartition("@")[2] or parse_qs(url.query).get("host", [""])[0]
    return f"{url.scheme}://{host}{url.path}" if url.scheme else "that is named"
