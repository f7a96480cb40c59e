"""Connection strings as people have them, made into what the driver understands.

The driver sends every parameter that it does not know to the server as a setting, and the server
refuses it. No message shows what stands before the last @ of a string: with a character that should
be percent-encoded, the password ends somewhere else than it seems.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pgflows.errors import SetupError

log = logging.getLogger("pgflows.database")

URL = re.compile(
    r"(postgres(?:ql)?)(?:\+\w+)?://(.*)", re.DOTALL
)  # with a driver's name or without
WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:\\.|[^'\\])*'|(?:\\.|[^\s\\'])*)(?=\s|$)", re.DOTALL)
CONNECT_SECONDS = 60.0  # unless the string says something else
# Of libpq's parameters, those that change nothing here.
DROPPED = {
    "application_name", "client_encoding", "fallback_application_name", "gssencmode",
    "gssdelegation", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
    "load_balance_hosts", "min_protocol_version", "max_protocol_version", "replication",
    "sslcompression", "sslsni", "tcp_user_timeout",
}  # fmt: skip
# Those that ask for a check that the driver cannot make.
UNCHECKED = {"channel_binding", "require_auth", "requirepeer", "sslcertmode", "sslcrldir"}
ENCODE = (
    "percent-encode the characters / ? # [ ] @ : and % of its user name and password: / is %2F, "
    "? is %3F, # is %23, @ is %40"
)


@dataclass(frozen=True)
class Address:
    """A connection string in parts. `hosts` is empty for the driver's default."""

    user: str | None
    password: str | None
    hosts: str
    database: str
    parameters: tuple[tuple[str, str], ...]
    timeout_seconds: float

    @property
    def url(self) -> str:
        """The string for the driver."""
        user = "" if self.user is None else quote(self.user, safe="")
        if self.password:
            user += f":{quote(self.password, safe='')}"
        at = "@" if user else ""
        query = urlencode(self.parameters)
        database = quote(self.database, safe="")
        return f"postgresql://{user}{at}{self.hosts}/{database}" + (f"?{query}" if query else "")


@lru_cache(maxsize=256)
def parse(dsn: str) -> Address:
    """A URL, or libpq's `host=… dbname=…`. Raises SetupError, without the password, if it cannot be
    read.
    """
    parts, pairs = _split(dsn)
    found = parts | {k: v for k, v in pairs if k in ("user", "password", "dbname", "database")}
    rest = {k: v for k, v in pairs if k not in found and k not in DROPPED}
    for name in sorted(UNCHECKED & rest.keys()):
        log.warning("the DSN's %s=%s cannot be checked and is ignored", name, rest.pop(name))
    if address := rest.pop("hostaddr", None):
        parts["hosts"] = rest["host"] = address
    if "host" in rest:
        parts["hosts"] = ""
    seconds = _seconds(rest, dsn)
    user = found.get("user") or None
    if user is None and "service" not in rest:
        user = _this_user(dsn)
    return Address(
        user,
        found.get("password") or None,
        parts.get("hosts", ""),
        found.get("dbname") or found.get("database") or "",
        tuple(rest.items()),
        seconds,
    )


def as_role(dsn: str, role: str, password: str | None) -> str:
    """The string that logs in as another role of the same server."""
    own = parse(dsn)
    return Address(role, password, *_place(own)).url


def user_of(dsn: str) -> str | None:
    """The role that the string logs in as; None if a service file says it."""
    return parse(dsn).user


def shown(dsn: str) -> str:
    """Server and database of a string, without user and password."""
    if "://" not in dsn:
        words = dict(WORD.findall(dsn))
        return f"{words.get('host', '')}/{words.get('dbname', '')}"
    before_password = re.split(r"[?&]password=", dsn)[0]
    server = before_password.partition("://")[2].rpartition("@")[2]
    place, _, query = server.partition("?")
    host = dict(parse_qsl(query)).get("host", "")
    return f"postgresql://{host if place.startswith('/') else ''}{place}"


def _place(address: Address) -> tuple[str, str, tuple[tuple[str, str], ...], float]:
    return address.hosts, address.database, address.parameters, address.timeout_seconds


def _split(dsn: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    url = URL.match(dsn)
    if url is None:
        return {}, _words(dsn)
    try:
        split = urlsplit(f"postgresql://{url[2]}")
        authority, place = split.netloc, split.path.removeprefix("/")
        pairs = parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query))
    except ValueError as e:  # a bracket without its other half, a parameter without =
        raise _unreadable(dsn) from e
    login, at, hosts = authority.rpartition("@")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    misplaced = split.fragment or "@" in login or "@" in place or "/" in place
    if misplaced or not all(port.isdigit() or not port for port in ports):
        raise _unreadable(dsn)
    user, colon, password = login.partition(":")
    parts = {"hosts": hosts, "dbname": unquote(place)}
    if at:
        parts["user"] = unquote(user)
    if colon:
        parts["password"] = unquote(password)
    return {k: v for k, v in parts.items() if v}, pairs


def _words(dsn: str) -> list[tuple[str, str]]:
    if not dsn.strip() or WORD.sub("", dsn).strip():
        raise SetupError(
            f"the database {shown(dsn)} is not a connection string: write "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or host=HOST dbname=DATABASE"
        )
    return [
        (name, re.sub(r"\\(.)", r"\1", value[1:-1] if value.startswith("'") else value))
        for name, value in WORD.findall(dsn)
    ]


def _unreadable(dsn: str) -> SetupError:
    return SetupError(f"the DSN of {shown(dsn)} cannot be read: {ENCODE}")


def _this_user(dsn: str) -> str:
    if name := os.environ.get("PGUSER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError) as e:
        raise SetupError(
            f"the DSN of {shown(dsn)} names no user, and this process's user {os.getuid()} has no "
            "name: add one, as in postgresql://USER@HOST/DATABASE, or set PGUSER"
        ) from e


def _seconds(parameters: dict[str, str], dsn: str) -> float:
    """What `connect_timeout` says; it is taken out of the parameters."""
    given = parameters.pop("connect_timeout", "") or "0"
    if not re.fullmatch(r"-?\d+", given):
        raise SetupError(f"the DSN of {shown(dsn)} has connect_timeout={given}, not a number")
    return float(given) if int(given) > 0 else CONNECT_SECONDS
