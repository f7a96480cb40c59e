"""The settings of PostgreSQL that each kind of session fixes, whatever the server's defaults are.

A setting is fixed here if a default of the server, the database or the role could change what
pgflows does: what a statement means, how a value is written, when a session ends. The rest (memory,
costs, logging, tablespaces) is left to whoever runs the server, and so is
`default_transaction_read_only`: a database that is read-only is meant to be.
"""

from __future__ import annotations

from collections.abc import Mapping

# What every session of pgflows fixes, except those that run users' statements.
OWN: Mapping[str, str] = {
    "search_path": "pg_catalog",
    # a session ends when pgflows ends it
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "60000",  # ms; a process that hangs frees its locks
    "exit_on_error": "off",
    # each statement sees what was committed before it, and waits for locks instead of failing
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # how values are written and read
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "xmloption": "content",
    # how statements are read
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "escape_string_warning": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    # what statements may read and make
    "row_security": "on",
    "restrict_nonsystem_relation_kind": "",
    "check_function_bodies": "on",
    "createrole_self_grant": "",
    "default_table_access_method": "heap",
    # a crash of the server is told by a warning
    "client_min_messages": "notice",
    # short statements are not worth a compilation or a second process
    "jit": "off",
    "debug_parallel_query": "off",
    "force_parallel_mode": "off",
    "max_parallel_workers_per_gather": "0",
}

# For sessions that only look up rows by key: one plan for good, and never one that reads a whole
# table because it was small when the plan was made. Joins are done in the order in which they are
# written: from the keys to the rows.
BY_KEY: Mapping[str, str] = {
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_nestloop": "on",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_bitmapscan": "on",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
}

# What is fixed for a user's statement. All else is the role's own business: its time-outs for
# statements and locks, search_path, TimeZone, DateStyle, row_security, planning …
NODE: Mapping[str, str] = {
    "df.in_workflow": "true",
    "client_connection_check_interval": "1000",  # ms
    # as soon as the engine counts as dead, what it left open must not stand in its successor's way
    "idle_in_transaction_session_timeout": "4000",  # ms
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    # the checkpoint is in the statement's transaction
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # captures are quoted for this syntax: with another a value could become a statement
    "standard_conforming_strings": "on",
    # results are JSON, whose numbers are exact
    "extra_float_digits": "1",
    "client_min_messages": "warning",
}
