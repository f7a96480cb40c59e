"""Flows that are started, waited for and looked at, in a database where somebody runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pgflows.database.connections import Connection
from tests.conftest import until

PATIENCE = 60  # seconds
# The extension drops a signal that comes before its engine listens, a moment after the node shows
# running. Only the engine's own record tells: a subscription that no other work follows.
LISTENS = """
select count(*) >= $2 from _duroxide.history h
where (h.instance_id = $1 or starts_with(h.instance_id, $1 || '::'))
  and h.event_data::json ->> 'type' = 'ExternalSubscribed'
  and not exists (
    select from _duroxide.history l
    where l.instance_id = h.instance_id and l.execution_id = h.execution_id
      and l.event_id > h.event_id and l.event_data::json ->> 'type' like 'Activity%'
  )
"""


@dataclass(frozen=True)
class Played:
    """What became of one flow."""

    id: str
    status: str
    output: str | None
    result: str | None
    nodes: list[dict[str, Any]] = field(repr=False)

    @property
    def value(self) -> Any:
        """The instance's output as JSON."""
        assert self.status == "completed", self.output
        return json.loads(self.output or "")

    @property
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.value["rows"]
        return found

    @property
    def cell(self) -> Any:
        """The first column of the first row."""
        return next(iter(self.rows[0].values()))

    @property
    def error(self) -> str:
        assert self.status == "failed", (self.status, self.output)
        return self.output or ""

    @cached_property
    def seen(self) -> dict[str, str]:
        """Type or text of a node -> its inferred status."""
        return {self._name(n): n["inferred_status"] for n in self.nodes}

    def node(self, name: str) -> dict[str, Any]:
        """The node of this text, or of this type."""
        [found] = [n for n in self.nodes if name in (n["node_type"], n["query"])]
        return found

    @staticmethod
    def _name(node: dict[str, Any]) -> str:
        return str(node["query"] if node["node_type"] in ("SQL", "SLEEP") else node["node_type"])


def literal(text: str) -> str:
    """A text as an SQL expression."""
    return "'" + text.replace("'", "''") + "'"


async def start(conn: Connection, flow: str, label: str | None = None) -> str:
    """Starts what an SQL expression gives; its id."""
    found: str = await conn.fetchval(f"select df.start({flow}, $1)", label)
    return found


async def play(conn: Connection, flow: str, label: str | None = None) -> Played:
    """Starts what an SQL expression gives and waits for its end."""
    return await finish(conn, await start(conn, flow, label))


async def play_all(conn: Connection, flows: list[str]) -> list[Played]:
    """The same for several, which run side by side."""
    started = [await start(conn, flow) for flow in flows]
    return [await finish(conn, instance) for instance in started]


async def finish(conn: Connection, instance: str) -> Played:
    """Waits for the end, and for the output: the extension writes it after the status."""
    await conn.fetchval("select df.await_instance($1, $2)", instance, PATIENCE)
    shown = "select output is not null from df.instance_info($1)"
    await until(lambda: conn.fetchval(shown, instance), what="the output")
    return await look(conn, instance)


async def look(conn: Connection, instance: str) -> Played:
    info = await conn.fetchrow("select * from df.instance_info($1)", instance)
    assert info is not None
    nodes = await conn.fetch("select * from df.instance_nodes($1)", instance)
    result = await conn.fetchval("select df.result($1)", instance)
    return Played(instance, info["status"], info["output"], result, [dict(n) for n in nodes])


async def until_listening(conn: Connection, instance: str, waits: int = 1) -> None:
    """Waits until a signal that is raised now for one of these waits is not too early."""
    if await conn.fetchval("select to_regclass('_duroxide.history') is not null"):
        await until(lambda: conn.fetchval(LISTENS, instance, waits), what="the waits for signals")


async def until_node(conn: Connection, instance: str, type: str, status: str = "running") -> None:
    """Waits until a node of this type shows this status, and may be signalled if it waits."""
    shown = (
        "select true from df.instance_nodes($1) "
        "where node_type = $2 and inferred_status = $3 limit 1"
    )
    await until(lambda: conn.fetchval(shown, instance, type, status), what=f"{type} {status}")
    if (type, status) == ("SIGNAL", "running"):
        await until_listening(conn, instance)
