"""Runs cases against a server with a `df` schema and writes down what it did.

Ids, durations, dates and server names differ from run to run: they are masked.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

HERE = Path(__file__).parent
PARENTS = ("IF", "LOOP", "JOIN")
ID = re.compile(r"\b[0-9a-f]{8}\b")
UNKNOWN = "deadbeef"
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:?\d\d)?|Z)?")
MASKS = (
    (re.compile(r'("duration_ms": ?)\d+'), r"\g<1>0"),
    (re.compile(r'("date": ?)"[^"]*"'), r'\g<1>"D"'),
    (re.compile(r'("server": ?)"[^"]*"'), r'\g<1>"S"'),
)
Case = dict[str, Any]
Record = dict[str, Any]


def lines(name: str) -> list[dict[str, Any]]:
    text = (HERE / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


class Recorder:
    """One server, one role, one HTTP peer."""

    def __init__(self, dsn: str, peer: str, *, patience: float = 0.0) -> None:
        self._dsn = dsn
        self._peer = peer
        self._patience = patience
        self._starting = asyncio.Lock()  # variables belong to the role, so starts take turns

    async def record(self, cases: Iterable[Case], at_once: int = 8) -> dict[str, Record]:
        gate = asyncio.Semaphore(at_once)

        async def one(case: Case) -> tuple[str, Record]:
            async with gate:
                return case["name"], await self._run(case)

        return dict(await asyncio.gather(*(one(case) for case in cases)))

    async def _run(self, case: Case) -> Record:
        conn = await asyncpg.connect(self._dsn)
        try:
            for statement in case.get("setup", ()):
                await conn.execute(statement)
            if "query" in case:
                record = await self._answer(conn, case["query"])
            else:
                record = await self._flow(conn, case)
        finally:
            await conn.close()
        masked: Record = json.loads(json.dumps(record).replace(self._peer, "@PEER@"))
        return masked | {"name": case["name"]}

    async def _answer(
        self, conn: asyncpg.Connection[Any], statement: str, instance: str | None = None
    ) -> Record:
        statement = statement.replace("@PEER@", self._peer).replace("@ID@", instance or "")
        try:
            rows = await conn.fetch(statement)
        except asyncpg.PostgresError as e:
            return _refused(e)
        return {"rows": [[_shown(value) for value in row.values()] for row in rows]}

    async def _flow(self, conn: asyncpg.Connection[Any], case: Case) -> Record:
        flow = case["flow"].replace("@PEER@", self._peer)
        async with self._starting:
            for name, value in case.get("vars", {}).items():
                await conn.fetchval("select df.setvar($1, $2)", name, value)
            try:
                instance = await conn.fetchval(
                    f"select df.start({flow}, {case.get('label', 'null')})"
                )
            except asyncpg.PostgresError as e:
                return {"start": _refused(e)}
            finally:
                if case.get("vars"):
                    await conn.fetchval("select df.clearvars()")
        record: Record = {}
        for delay, statement in case.get("during", ()):
            await asyncio.sleep(delay)
            record.setdefault("during", []).append(await self._answer(conn, statement, instance))
        await self._end(conn, instance, case.get("wait", 60))
        await asyncio.sleep(min(case.get("settle", 0.0), self._patience))
        return await self._look(conn, case, instance, record)

    async def watch(self, conn: asyncpg.Connection[Any], instance: str) -> Record:
        """An instance that was started elsewhere, as it stands when it has ended."""
        await self._end(conn, instance, 60)
        return await self._look(conn, {"name": ""}, instance, {})

    async def _end(self, conn: asyncpg.Connection[Any], instance: str, seconds: float) -> None:
        await conn.fetchval("select df.await_instance($1, $2)", instance, int(seconds))

    async def _look(
        self, conn: asyncpg.Connection[Any], case: Case, instance: str, record: Record
    ) -> Record:
        nodes = {
            row["node_id"]: row
            for row in await conn.fetch("select * from df.instance_nodes($1)", instance)
        }
        root = await conn.fetchval("select root_node from df.instances where id = $1", instance)
        order = _in_tree_order(nodes, root)
        names = {node: f"n{i}" for i, node in enumerate(order)} | {instance: "ID"}
        keep_times = case["name"].startswith("type-")

        def mask(text: str | None) -> str | None:
            return None if text is None else _mask(text, names, keep_times=keep_times)

        info = await conn.fetchrow("select * from df.instance_info($1)", instance)
        assert info is not None
        record |= {
            "status": await conn.fetchval("select df.status($1)", instance),
            "result": mask(await conn.fetchval("select df.result($1)", instance)),
            "output": mask(info["output"]),
            "executions": info["current_execution_id"],
            "nodes": [
                {
                    "id": names[node],
                    "type": nodes[node]["node_type"],
                    "query": mask(nodes[node]["query"]),
                    "name": nodes[node]["result_name"],
                    "left": names.get(nodes[node]["left_node"]),
                    "right": names.get(nodes[node]["right_node"]),
                    "status": nodes[node]["status"],
                    "inferred": nodes[node]["inferred_status"],
                    "result": mask(nodes[node]["result"]),
                    "details": mask(nodes[node]["status_details"]),
                }
                for node in order
            ],
        }
        for statement in case.get("after", ()):
            answer = await self._answer(conn, statement, instance)
            if "rows" in answer:
                answer["rows"] = mask(json.dumps(answer["rows"]))
            record.setdefault("after", []).append(answer)
        return json.loads(json.dumps(record).replace(instance, "ID"))  # type: ignore[no-any-return]


def _refused(error: asyncpg.PostgresError) -> Record:
    return {"error": error.args[0], "sqlstate": error.sqlstate}


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    return "ID" if ID.fullmatch(text) and text != UNKNOWN else text


def _mask(text: str, names: dict[str, str], *, keep_times: bool) -> str:
    text = ID.sub(lambda found: names.get(found[0], found[0]), text)
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return text if keep_times else TIME.sub("T", text)


def _in_tree_order(nodes: dict[str, Any], root: str) -> list[str]:
    """The node, then what its query names, then left and right."""
    order: list[str] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if node not in nodes or node in order:
            continue
        order.append(node)
        row = nodes[node]
        named = ID.findall(row["query"] or "") if row["node_type"] in PARENTS else []
        children = [*named, row["left_node"], row["right_node"]]
        todo.extend(child for child in reversed(children) if child)
    return order


def without_words(value: Any) -> Any:
    """Of an error raised in a call only that it is one must agree, not its words or code."""
    if isinstance(value, list):
        return [without_words(v) for v in value]
    if isinstance(value, dict):
        if "sqlstate" in value:
            kept = {k: v for k, v in value.items() if k not in ("error", "sqlstate")}
            return kept | {"error": True}
        return {k: without_words(v) for k, v in value.items()}
    return value
