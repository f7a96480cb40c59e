"""The engine's control connection: heartbeat, claims, and the graphs of what was claimed.

Prepared graphs are loaded once, the nodes of other instances each time.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from pgflows.engine.call.steps import Waiting
from pgflows.engine.node.graph import Node, build
from pgflows.engine.node.results import Result

log = logging.getLogger("pgflows.engine")

MOST_PREPARED = 500  # graphs that are kept in memory
CLAIM = "select * from df._claim($1, $2, $3)"


@dataclass(frozen=True)
class Claim:
    """What df._claim answered for one instance.

    `before` holds the nodes that had ended by then. Statements run in `database`, None for the
    engine's. `calls` are the types of nodes that the role may call over HTTP with.
    """

    instance: str
    token: uuid.UUID
    label: str | None
    role: str
    variables: Mapping[str, str]
    root: Node
    before: Mapping[str, tuple[str, str, Result]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    database: str | None = None
    calls: frozenset[str] = frozenset()


class Claims:
    """All statements of the control connection, one at a time."""

    def __init__(self, conn: asyncpg.Connection[Any], engine: uuid.UUID) -> None:
        self._conn = conn
        self._engine = engine
        self._turn = asyncio.Lock()
        self._prepared: OrderedDict[bytes, Node] = OrderedDict()

    async def open(self, before: uuid.UUID | None) -> None:
        """Announces the engine. What its earlier session held becomes free."""
        async with self._turn:
            await self._conn.execute("select df._open_engine($1, $2)", self._engine, before)

    async def close(self, *, failed: bool = False) -> None:
        """Gives every run back. `failed`: one of them may have caused this end."""
        async with self._turn:
            await self._conn.execute("select df._close_engine($1, $2)", self._engine, failed)

    async def beat(self) -> tuple[dt.datetime, bool, dt.datetime | None]:
        """The database's time, whether this engine counts as alive, and when work is due next."""
        async with self._turn:
            [row] = await self._conn.fetch("select * from df._heartbeat($1)", self._engine)
        return row["at"], row["alive"], row["due"]

    async def commit_async(self) -> None:
        """From now on claims and heartbeats do not wait for the disk."""
        async with self._turn:
            await self._conn.execute("set synchronous_commit = off")

    async def claim(self, most: int, *, polls: bool) -> list[asyncpg.Record]:
        """Up to `most` free instances, which this engine owns from now on. `polls`: the next call
        comes within 60 ms, so starts need not notify.
        """
        async with self._turn:
            return await self._conn.fetch(CLAIM, self._engine, most, polls)

    async def resolve(self, rows: Sequence[asyncpg.Record]) -> list[Claim]:
        """Claims with their graphs. Nodes are read of instances that were begun before, or have no
        prepared graph. An instance whose graph cannot be read is given back; the others go on.
        """
        unknown = [
            r["instance_id"] for r in rows if r["state"] is not None or r["prepared"] is None
        ]
        loaded: dict[str, list[asyncpg.Record]] = {i: [] for i in unknown}
        if unknown:
            async with self._turn:
                nodes = await self._conn.fetch("select * from df._load($1)", unknown)
            for node in nodes:
                loaded[node["instance_id"]].append(node)
        claims = []
        for row in rows:
            try:
                claims.append(await self._claim(row, loaded.get(row["instance_id"])))
            except (LookupError, TypeError, ValueError, RecursionError) as e:
                instance, reason = row["instance_id"], f"the graph cannot be read: {e!r}"
                log.warning("instance %s: %s", instance, reason)
                await self.release(instance, row["token"], reason)
        return claims

    async def _claim(self, row: asyncpg.Record, nodes: list[asyncpg.Record] | None) -> Claim:
        if row["prepared"] is not None:
            graph = await self._prepared_graph(row["prepared"], row["root_node"])
        else:
            graph = build(row["root_node"], nodes or [])
        before = {
            n["id"]: (n["status"], n["execution_id"], Result(n["result"]))
            for n in nodes or ()
            if n["status"] in ("completed", "failed") and n["result"] is not None
        }
        return Claim(
            row["instance_id"],
            row["token"],
            row["label"],
            row["role"] or "",
            json.loads(row["vars"]),
            graph,
            before,
            json.loads(row["state"] or "{}"),
            row["database"],
            frozenset(row["calls"]),
        )

    async def _prepared_graph(self, key: bytes, root: str) -> Node:
        graph = self._prepared.get(key)
        if graph is None:
            async with self._turn:
                rows = await self._conn.fetch("select * from df._load_prepared($1)", key)
            graph = build(root, rows, prepared=True)
            self._prepared[key] = graph
            if len(self._prepared) > MOST_PREPARED:
                self._prepared.popitem(last=False)
        return graph

    async def release(self, instance: str, token: uuid.UUID, reason: str | None) -> None:
        """Gives one run back. With a reason it counts as a failure of the engine on this run."""
        async with self._turn:
            await self._conn.execute("select df._release($1, $2, $3)", instance, token, reason)

    async def mail(self, instances: list[str]) -> list[asyncpg.Record]:
        """Signals raised for these instances and not used up yet, oldest first."""
        async with self._turn:
            return await self._conn.fetch("select * from df._mail($1)", instances)

    async def await_steps(self, waiting: Sequence[Waiting]) -> list[bool]:
        """Which steps have no outcome in the ledger; for those it keeps why it was asked."""
        async with self._turn:
            found: list[bool] = await self._conn.fetchval(
                "select pgflows.await_steps($1, $2, $3)",
                [w.call.instance for w in waiting],
                [w.call.step_key for w in waiting],
                [w.reason for w in waiting],
            )
        return found

    async def base_urls(self) -> list[str]:
        async with self._turn:
            return [r["url"] for r in await self._conn.fetch("select url from pgflows.base_urls")]
