"""What each kind of session fixes, whatever the defaults of database and role are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pgflows.database import connections as db
from pgflows.database.migrations.scripts import sql_directory
from pgflows.database.session_settings import BY_KEY, NODE, OWN
from tests.conftest import OWNER, Database
from tests.database.strange import STRANGE, alter, known

OWN_KINDS = [
    db.ENGINE, db.BATCHES, db.CLAIMS, db.RECORDS, db.SERVICE, db.COMMAND, db.MIGRATION,
    db.MAINTENANCE, db.READS, db.CHANGES,
]  # fmt: skip
SHOWN = "select name, setting from pg_settings where name = any ($1)"

# What is left as it is, and why that cannot change what pgflows does.
ADMINISTRATORS = {
    "memory and disk": {
        "backend_flush_after", "default_tablespace", "default_toast_compression",
        "effective_cache_size", "effective_io_concurrency", "gin_pending_list_limit",
        "file_copy_method", "hash_mem_multiplier", "io_combine_limit", "logical_decoding_work_mem",
        "maintenance_io_concurrency", "maintenance_work_mem", "temp_buffers", "temp_tablespaces",
        "wal_skip_threshold", "work_mem",
    },
    "vacuum and statistics": {
        "default_statistics_target", "stats_fetch_consistency", "vacuum_buffer_usage_limit",
        "vacuum_cost_delay", "vacuum_cost_limit", "vacuum_cost_page_dirty", "vacuum_cost_page_hit",
        "vacuum_cost_page_miss", "vacuum_failsafe_age", "vacuum_freeze_min_age",
        "vacuum_freeze_table_age", "vacuum_max_eager_freeze_failure_rate",
        "vacuum_multixact_failsafe_age", "vacuum_multixact_freeze_min_age",
        "vacuum_multixact_freeze_table_age", "vacuum_truncate",
    },
    "which plan is taken, not what it answers": {
        "constraint_exclusion", "cpu_index_tuple_cost", "cpu_operator_cost", "cpu_tuple_cost",
        "cursor_tuple_fraction", "enable_async_append", "enable_distinct_reordering",
        "enable_gathermerge", "enable_group_by_reordering", "enable_hashagg",
        "enable_incremental_sort", "enable_material", "enable_memoize", "enable_parallel_append",
        "enable_parallel_hash", "enable_partition_pruning", "enable_partitionwise_aggregate",
        "enable_partitionwise_join", "enable_presorted_aggregate", "enable_self_join_elimination",
        "enable_sort", "enable_tidscan", "geqo", "geqo_effort", "geqo_generations",
        "geqo_pool_size", "geqo_seed", "geqo_selection_bias", "geqo_threshold", "jit_above_cost",
        "jit_expressions", "jit_inline_above_cost", "jit_optimize_above_cost",
        "jit_tuple_deforming", "max_parallel_maintenance_workers", "max_parallel_workers",
        "min_parallel_index_scan_size", "min_parallel_table_scan_size",
        "parallel_leader_participation", "parallel_setup_cost", "parallel_tuple_cost",
        "random_page_cost", "recursive_worktable_factor", "seq_page_cost", "synchronize_seqscans",
    },
    "tracing": {
        "debug_pretty_print", "debug_print_parse", "debug_print_plan", "debug_print_rewritten",
        "log_parameter_max_length_on_error", "trace_notify", "trace_sort",
    },
    "the network": {
        "client_connection_check_interval", "tcp_keepalives_count", "tcp_keepalives_idle",
        "tcp_keepalives_interval", "tcp_user_timeout",
    },
    "nothing here depends on it": {
        "commit_siblings", "default_text_search_config", "gin_fuzzy_search_limit",
        "icu_validation_level", "lc_monetary", "lc_numeric", "lc_time", "local_preload_libraries",
        "md5_password_warnings", "password_encryption", "scram_iterations",
        "timezone_abbreviations", "debug_logical_replication_streaming", "wal_sender_timeout",
    },
    "of one transaction, not a default": {
        "transaction_deferrable", "transaction_isolation", "transaction_read_only",
    },
    "given when the session is opened": {"application_name", "client_encoding"},
    "a database that is read-only is meant to be": {"default_transaction_read_only"},
    "raised where it is off, as each kind of session says": {"synchronous_commit"},
}  # fmt: skip


@pytest.fixture
async def strange(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """An administrator's session; the test's database and its owner have strange settings."""
    admin = await asyncpg.connect(database.admin_dsn)
    settings = await known(admin)
    await alter(admin, f"database {database.name}", settings)
    await alter(admin, f"role {OWNER} in database {database.name}", settings)
    yield admin
    await admin.close()


async def shown(conn: asyncpg.Connection[Any], names: set[str]) -> dict[str, str]:
    return {r["name"]: r["setting"] for r in await conn.fetch(SHOWN, list(names))}


@pytest.mark.parametrize("kind", OWN_KINDS, ids=lambda kind: kind.name)
async def test_a_session_of_pgflows_fixes_its_settings(
    database: Database, strange: asyncpg.Connection[Any], kind: db.Kind
) -> None:
    conn = await db.connect(database.dsn, kind)
    found = await shown(conn, set(kind.settings) | {"synchronous_commit"})
    await conn.close()
    expected = {"synchronous_commit": "on"} | {k: v for k, v in kind.settings.items() if k in found}
    assert found == expected


async def test_a_session_for_nodes_fixes_what_the_engine_needs_and_keeps_the_roles_own(
    database: Database, strange: asyncpg.Connection[Any]
) -> None:
    conn = await db.connect(database.dsn, db.NODES)
    settings = await known(strange)
    found = await shown(conn, set(settings) | {"synchronous_commit"})
    own = {
        r["name"]: r["setting"]
        for r in await strange.fetch("select name, boot_val as setting from pg_settings")
    }
    await conn.close()
    assert {k: v for k, v in found.items() if k in NODE} == {
        k: v for k, v in NODE.items() if k in found
    }
    assert found["synchronous_commit"] == "on"
    kept = set(settings) - set(NODE) - {"synchronous_commit"}
    assert {"statement_timeout", "search_path", "TimeZone", "row_security"} <= kept
    kept -= {k for k, v in settings.items() if v == own.get(k)}  # jit is on by default
    assert {k for k in kept if k in found and found[k] == own[k]} == set()


@pytest.mark.parametrize("level", ["on", "local", "remote_write", "remote_apply"])
async def test_a_level_of_synchronous_commit_other_than_off_is_kept(
    database: Database, level: str
) -> None:
    admin = await asyncpg.connect(database.admin_dsn)
    await alter(admin, f"database {database.name}", {"synchronous_commit": level})
    conn = await db.connect(database.dsn, db.ENGINE)
    assert await conn.fetchval("show synchronous_commit") == level
    await conn.close()
    await admin.close()


async def test_every_setting_of_the_server_is_fixed_or_known_not_to_matter(
    owner: asyncpg.Connection[Any],
) -> None:
    found = {
        r["name"] for r in await owner.fetch("select name from pg_settings where context = 'user'")
    }
    left = set().union(*ADMINISTRATORS.values())
    custom = {name for name in found if "." in name}
    assert found - custom - left - set(OWN) - set(BY_KEY) == set()
    assert left & (set(OWN) | set(BY_KEY)) == set()
    assert {name for name in STRANGE if "." not in name} <= set(OWN) | set(BY_KEY) | left


LITERAL = re.compile(r"--[^\n]*|(\b[eE])?'((?:[^']|'')*)'")


@pytest.mark.parametrize("folder", ["df", "functions"])
def test_no_function_depends_on_what_a_backslash_means(folder: str) -> None:
    """Where standard_conforming_strings is off, a backslash in a plain literal is an escape. A
    function's text is read with the setting of whoever calls it.
    """
    found = [
        f"{path.name}: {literal[0]}"
        for path in (sql_directory() / folder).glob("*.sql")
        for literal in LITERAL.finditer(path.read_text("utf-8"))
        if literal[2] and "\\" in literal[2] and not literal[1]
    ]
    assert found == []
