"""The catalogue of a `df` schema, in the shape of surface.json (recorded on pg_durable 0.2.6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("surface.json").read_text())

FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
  p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0) as public,
  p.prosecdef, p.proisstrict, p.provolatile::text
from pg_proc p where p.pronamespace = 'df'::regnamespace and p.proname not like '\\_%'
"""
OPERATORS = """
select o.oprname, n.nspname, coalesce(nullif(format_type(nullif(o.oprleft, 0), null), '???'), '-'),
  format_type(o.oprright, null), o.oprcode::text
from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
join pg_proc p on p.oid = o.oprcode where p.pronamespace = 'df'::regnamespace
"""
COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  pg_get_expr(d.adbin, d.adrelid)
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
INDEXES = "select indexdef from pg_indexes where schemaname = 'df' and tablename = $1 order by 1"
CONSTRAINTS = """
select conname, pg_get_constraintdef(oid) from pg_constraint
where conrelid = $1::text::regclass and contype <> 'n' order by conname
"""
POLICIES = """
select cmd, policyname as name, with_check as check, roles::text[] as roles, qual as using
from pg_policies where schemaname = 'df' and tablename = $1 order by 2
"""
SECURITY = "select relrowsecurity, relforcerowsecurity from pg_class where oid = $1::text::regclass"


async def surface(conn: asyncpg.Connection[Any]) -> dict[str, Any]:
    """What `conn` finds: functions, operators, tables of `df`, as lists and dicts."""
    await conn.execute("set search_path = pg_catalog")
    tables = {}
    for name in RECORDED["tables"]:
        (secured,) = await conn.fetch(SECURITY, f"df.{name}")
        tables[name] = {
            "columns": [list(r) for r in await conn.fetch(COLUMNS, f"df.{name}")],
            "indexes": [r[0] for r in await conn.fetch(INDEXES, name)],
            "policies": [dict(r) for r in await conn.fetch(POLICIES, name)],
            "constraints": [list(r) for r in await conn.fetch(CONSTRAINTS, f"df.{name}")],
            "row_security": secured[0],
            "forced": secured[1],
        }
    return {
        "functions": sorted(list(r) for r in await conn.fetch(FUNCTIONS)),
        "operators": sorted(list(r) for r in await conn.fetch(OPERATORS)),
        "tables": tables,
    }
