"""Settings that a server, a database or a role may have, and that change what statements mean."""

from __future__ import annotations

from typing import Any

import asyncpg

STRANGE = {
    "search_path": "nowhere, public, pg_catalog",
    "statement_timeout": "4s",
    "lock_timeout": "20ms",
    "transaction_timeout": "5s",
    "idle_session_timeout": "900ms",
    "idle_in_transaction_session_timeout": "800ms",
    "exit_on_error": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "xmloption": "document",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "escape_string_warning": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "check_function_bodies": "off",
    "createrole_self_grant": "set, inherit",
    "client_min_messages": "error",
    "jit": "on",
    "jit_above_cost": "0",
    "debug_parallel_query": "on",
    "force_parallel_mode": "on",
    "plan_cache_mode": "force_custom_plan",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",
    "plpgsql.extra_errors": "all",
    "plpgsql.variable_conflict": "use_column",
}


async def known(conn: asyncpg.Connection[Any]) -> dict[str, str]:
    """Those of the settings that the server knows."""
    names = {r["name"] for r in await conn.fetch("select name from pg_settings")}
    return {k: v for k, v in STRANGE.items() if k in names or k.startswith("plpgsql.")}


async def alter(conn: asyncpg.Connection[Any], whose: str, settings: dict[str, str]) -> None:
    """`whose` as ALTER takes it: database x, role x, role x in database y."""
    for name, value in settings.items():
        values = ", ".join(f"'{part.strip()}'" for part in value.split(","))
        # a list only where the setting is one
        text = values if name == "search_path" else f"'{value}'"
        await conn.execute(f"alter {whose} set {name} = {text}")
