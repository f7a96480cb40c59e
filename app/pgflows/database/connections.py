"""Opens every session with PostgreSQL, each kind with its settings.

What a session fixes is set by a statement after it was opened, not in the start-up packet. A server
refuses a packet with a setting that it does not know, and a pooler one with a setting that it does
not track.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from pgflows.database.dsn import parse
from pgflows.database.session_settings import BY_KEY, NODE, OWN

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True)
class Kind:
    """What sessions are for: their name in pg_stat_activity, and what they fix."""

    name: str
    settings: Mapping[str, str]
    decodes_json: bool = False
    caches_statements: bool = True
    durable: bool = True  # a commit waits for the disk, also where the server's default is off

    @property
    def assignments(self) -> str:
        """The statement that fixes the settings, as far as the server knows them."""
        rows = ", ".join(f"('{name}', '{value}')" for name, value in self.settings.items())
        text = (
            f"select pg_catalog.set_config(n, v, false) from (values {rows}) s(n, v) "  # noqa: S608 - constants
            "where pg_catalog.current_setting(n, true) is not null "
            "or pg_catalog.strpos(n, '.') operator(pg_catalog.>) 0"
        )
        if self.durable:
            text += (
                "; select pg_catalog.set_config('synchronous_commit', 'on', false) where "
                "pg_catalog.current_setting('synchronous_commit') operator(pg_catalog.=) 'off'"
            )
        return text


ENGINE = Kind("pgflows engine", {**OWN, **BY_KEY})
BATCHES = Kind("pgflows batches", {**OWN, **BY_KEY, "df.in_workflow": "true"})
NODES = Kind("pgflows node", NODE, caches_statements=False)
CLAIMS = Kind("pgflows claims", {**OWN, **BY_KEY, "synchronous_commit": "off"}, durable=False)
RECORDS = Kind("pgflows records", {**OWN, **BY_KEY})
SERVICE = Kind("pgflows service", OWN, decodes_json=True)
READS = Kind("pgflows reads", OWN, decodes_json=True)
CHANGES = Kind("pgflows changes", {**OWN, "lock_timeout": "3000"}, decodes_json=True)  # ms
COMMAND = Kind("pgflows command", OWN, decodes_json=True)
MIGRATION = Kind("pgflows migrate", OWN)
MAINTENANCE = Kind("pgflows maintenance", OWN)

# Whatever the defaults are, this transaction waits for nobody.
PIN = "begin isolation level read committed read only not deferrable; {}; commit"


def dump(value: Any) -> str:
    """A JSON value as PostgreSQL gets it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def connect(dsn: str, kind: Kind = COMMAND, *, database: str | None = None) -> Connection:
    """One session; `database` names another database of the same server."""
    address = parse(dsn)
    conn: Connection = await asyncpg.connect(
        address.url,
        timeout=address.timeout_seconds,
        database=database,
        statement_cache_size=100 if kind.caches_statements else 0,
        server_settings={"application_name": kind.name},
    )
    try:
        await _prepare(conn, kind)
    except BaseException:
        conn.terminate()
        raise
    return conn


@asynccontextmanager
async def open_pool(dsn: str, *, size: int = 10, kind: Kind = SERVICE) -> AsyncIterator[Pool]:
    """Sessions of one kind, closed at the end of the block. Nobody may change their settings."""

    async def prepare(conn: Any) -> None:
        await _prepare(conn, kind)

    address = parse(dsn)
    pool = await asyncpg.create_pool(
        address.url,
        timeout=address.timeout_seconds,
        min_size=0,  # asyncpg would log a traceback whenever it cannot keep one open
        max_size=size,
        init=prepare,
        reset=_close_if_read_only,
        server_settings={"application_name": kind.name},
    )
    try:
        yield pool
    finally:
        pool.terminate()


async def _prepare(conn: Any, kind: Kind) -> None:
    await conn.execute(PIN.format(kind.assignments))
    if kind.decodes_json:
        for name in ("json", "jsonb"):
            await conn.set_type_codec(name, encoder=dump, decoder=json.loads, schema="pg_catalog")


async def _close_if_read_only(conn: Any) -> None:
    """Nothing in the session was changed, so nothing is reset. A session that cannot write is not
    kept: the next one may find the new primary, or a database that is no longer read-only.
    """
    reported = conn.get_settings()
    for name in ("in_hot_standby", "default_transaction_read_only"):
        if getattr(reported, name, "off") == "on":
            conn.terminate()
            return
