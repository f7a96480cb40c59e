"""A stand-in for the extension pg_durable, for servers that do not have it.

`install` makes its tables (surface.json) and functions (stand_in.sql) in an empty database, owned
by a superuser; a Worker plays the background worker for straight graphs: a node at a time, a
failure ends the instance, and nothing is called twice unless the worker died before it recorded
the answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from pgflows.database.migrations.scripts import read_scripts
from tests.extension.surface import RECORDED

CONSTRUCTORS = (
    "df/05_rights.sql",
    "df/10_envelopes.sql",
    "df/12_constructors.sql",
    "df/14_http.sql",
)
HELPERS = re.compile(r"create or replace function df\._(if_then|else)\b.*?\$\$;", re.DOTALL)
REGISTER = """
insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
select (select max(oid)::bigint + 1 from pg_extension)::oid, 'pg_durable', r.oid, n.oid,
  false, '0.2.6' from pg_roles r, pg_namespace n where r.rolname = current_user and n.nspname = 'df'
"""
POLL_SECONDS = 0.02
BEAT_SECONDS = 1.0
SESSION = "pg_durable:worker:stand-in"
CAPTURE = re.compile(r"\$([A-Za-z_]\w*)\.([A-Za-z_]\w*)")

AsRole = Callable[[str], str]


async def install(admin_dsn: str) -> None:
    """Makes the stand-in in the superuser's database."""
    conn = await asyncpg.connect(admin_dsn)
    try:
        await conn.execute("set allow_system_table_mods = on")
        await conn.execute("create schema df")
        for statement in tables():
            await conn.execute(statement)
        texts = {s.name: s.text for s in read_scripts()}
        for name in CONSTRUCTORS:
            await conn.execute(texts[name])
        for found in HELPERS.finditer(texts["df/16_operators.sql"]):
            await conn.execute(found[0])
        await conn.execute("drop function df.version(), df.target_database()")
        await conn.execute(Path(__file__).with_name("stand_in.sql").read_text())
        await conn.execute(REGISTER)
    finally:
        await conn.close()


def tables() -> Iterator[str]:
    """The statements that make the recorded tables, foreign keys last."""
    made: dict[str, dict[str, Any]] = RECORDED["tables"]
    foreign = []
    for name, table in made.items():
        columns = ", ".join(
            f"{column} {kind}{' not null' if needed else ''}"
            + ("" if default is None else f" default {default}")
            for column, kind, needed, default in table["columns"]
        )
        yield f"create table df.{name} ({columns})"
        for constraint, definition in table["constraints"]:
            statement = f"alter table df.{name} add constraint {constraint} {definition}"
            if definition.startswith("FOREIGN"):
                foreign.append(statement)
            else:
                yield statement
        own = {constraint for constraint, _ in table["constraints"]}
        for index in table["indexes"]:
            if index.split(" ON ")[0].split()[-1] not in own:
                yield index
        if table["row_security"]:
            yield f"alter table df.{name} enable row level security"
        for policy in table["policies"]:
            yield (
                f"create policy {policy['name']} on df.{name} for {policy['cmd']} "
                f"using ({policy['using']}) with check ({policy['check']})"
            )
    yield from foreign


class NodeFailed(Exception):
    """A node failed, and so does its instance."""


@dataclass
class Node:
    id: str
    type: str
    query: str | None
    name: str | None
    left: str | None
    right: str | None
    status: str
    result: Any


class Worker:
    """Runs pending instances one node at a time; `as_role` gives the DSN of a role."""

    def __init__(self, admin: asyncpg.Connection[Any], as_role: AsRole) -> None:
        self._admin = admin
        self._as_role = as_role
        self._turn = asyncio.Lock()
        self._walks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Takes up what is pending, and what an earlier worker left running."""
        epoch = await self._write(
            "insert into df._worker_epoch (epoch_id) values (gen_random_uuid()) returning epoch_id"
        )
        beat = 0.0
        clock = asyncio.get_running_loop().time
        try:
            while True:
                if clock() - beat > BEAT_SECONDS:
                    beat = clock()
                    await self._write(
                        "update df._worker_epoch set last_seen_at = clock_timestamp() "
                        "where epoch_id = $1 returning 1",
                        epoch,
                    )
                open_ids = await self._write(
                    "select array_agg(id) from df.instances where status in ('pending', 'running')"
                )
                for instance in open_ids or []:
                    if instance not in self._walks:
                        self._walks[instance] = asyncio.create_task(self._walk(instance))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            for walk in self._walks.values():
                walk.cancel()
            await asyncio.gather(*self._walks.values(), return_exceptions=True)

    async def _write(self, statement: str, *args: Any) -> Any:
        async with self._turn:
            return await self._admin.fetchval(statement, *args)

    async def _walk(self, instance: str) -> None:
        async with self._turn:
            rows = await self._admin.fetch(
                "select id, node_type, query, result_name, left_node, right_node, status, result "
                "from df.nodes where instance_id = $1",
                instance,
            )
        nodes = {
            r["id"]: Node(
                id=r["id"],
                type=r["node_type"],
                query=r["query"],
                name=r["result_name"],
                left=r["left_node"],
                right=r["right_node"],
                status=r["status"],
                result=json.loads(r["result"] or "null"),
            )
            for r in rows
        }
        root, role = await self._begin(instance)
        captures: dict[str, Any] = {}
        conn = await asyncpg.connect(self._as_role(role))
        await conn.execute("set df.in_workflow = 'true'")
        try:
            await self._node(instance, nodes, nodes[root], captures, conn)
            status = "completed"
        except NodeFailed:
            status = "failed"
        finally:
            await conn.close()
        await self._write(
            "update df.instances set status = $2, updated_at = now(), "
            "completed_at = case when $2 = 'completed' then now() end "
            "where id = $1 and status = 'running' returning 1",
            instance,
            status,
        )

    async def _begin(self, instance: str) -> tuple[str, str]:
        row = await self._write(
            "update df.instances i set status = 'running', updated_at = now() where id = $1 "
            "returning array[root_node::text, "
            "(select rolname::text from pg_roles where oid = i.submitted_by)]",
            instance,
        )
        return row[0], row[1]

    async def _node(
        self,
        instance: str,
        nodes: dict[str, Node],
        node: Node,
        captures: dict[str, Any],
        conn: asyncpg.Connection[Any],
    ) -> Any:
        if node.status != "completed":
            await self._mark(instance, node, "running")
            try:
                node.result = await self._result(instance, nodes, node, captures, conn)
            except NodeFailed as e:
                await self._mark(instance, node, "failed", str(e))
                raise
            await self._mark(instance, node, "completed", node.result)
        elif node.left is not None:
            await self._result(instance, nodes, node, captures, conn)  # for its captures
        if node.name:
            captures[node.name] = node.result
        return node.result

    async def _result(
        self,
        instance: str,
        nodes: dict[str, Node],
        node: Node,
        captures: dict[str, Any],
        conn: asyncpg.Connection[Any],
    ) -> Any:
        query = (node.query or "").replace("{sys_instance_id}", instance)
        match node.type:
            case "THEN":
                assert node.left is not None
                assert node.right is not None
                await self._node(instance, nodes, nodes[node.left], captures, conn)
                return await self._node(instance, nodes, nodes[node.right], captures, conn)
            case "SQL":
                return await self._sql(_filled(query, captures, quoted=True), conn)
            case "HTTP":
                return await self._http(json.loads(query), captures)
            case "SLEEP":
                await asyncio.sleep(int(query))
                return {"slept": True, "seconds": int(query)}
        raise AssertionError(f"the stand-in runs no {node.type}")

    async def _sql(self, query: str, conn: asyncpg.Connection[Any]) -> Any:
        try:
            rows = await conn.fetchval(
                f"select coalesce(jsonb_agg(to_jsonb(q)), '[]')::text from ({query}\n) q"  # noqa: S608
            )
        except (asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as e:
            raise NodeFailed(f"SQL execution failed: error communicating with database: {e}") from e
        except asyncpg.PostgresError as e:
            raise NodeFailed(
                f"SQL execution failed: error returned from database: {e.args[0]}"
            ) from e
        found = json.loads(rows)
        return {"rows": found, "row_count": len(found)}

    async def _http(self, spec: dict[str, Any], captures: dict[str, Any]) -> Any:
        headers = {k: _filled(v, captures) for k, v in (spec["headers"] or {}).items()}
        body = _filled(spec["body"] or "", captures)
        async with httpx.AsyncClient(trust_env=False, timeout=spec["timeout_seconds"]) as client:
            try:
                answer = await client.request(
                    spec["method"], spec["url"], content=body, headers=headers
                )
            except httpx.TransportError as e:
                raise NodeFailed(f"HTTP connection failed: {spec['url']} - {e}") from e
        if answer.status_code >= 500:
            raise NodeFailed(
                f"HTTP {spec['method']} {spec['url']} returned {answer.status_code}: {answer.text}"
            )
        return {
            "status": answer.status_code,
            "body": answer.text,
            "encoding": "text",
            "headers": dict(answer.headers),
            "ok": answer.is_success,
            "duration_ms": int(answer.elapsed.total_seconds() * 1000),
        }

    async def _mark(self, instance: str, node: Node, status: str, result: Any = None) -> None:
        await self._write(
            "update df.nodes set status = $3, result = $4, updated_at = now() "
            "where instance_id = $1 and id = $2 returning 1",
            instance,
            node.id,
            status,
            None if result is None else json.dumps(result),
        )


def _filled(text: str, captures: dict[str, Any], *, quoted: bool = False) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in captures:
            return found[0]
        capture = captures[found[1]]
        one = capture["rows"][0][found[2]] if "rows" in capture else capture[found[2]]
        plain = one if isinstance(one, str) else json.dumps(one)
        if quoted and isinstance(one, str):
            return "'" + plain.replace("'", "''") + "'"
        return plain

    return CAPTURE.sub(value, text)


@asynccontextmanager
async def working(admin_dsn: str, as_role: AsRole) -> AsyncIterator[None]:
    """A worker for the block; at its end the worker dies without a word."""
    admin = await asyncpg.connect(admin_dsn, server_settings={"application_name": SESSION})
    task = asyncio.create_task(Worker(admin, as_role).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await admin.close()
