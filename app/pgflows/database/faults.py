"""What an error of PostgreSQL or of the connection to it means."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from pgflows.errors import BY_SQLSTATE, InvalidRequest, PgflowsError

CRASHED = "57P02"  # what the server tells all others when a session's process died
AWAY = (
    "25006",  # read_only_sql_transaction: a standby, or somebody made the database read-only
    "57P01",  # admin_shutdown
    CRASHED,
    "57P03",  # cannot_connect_now
    "57P04",  # database_dropped
    "57P05",  # idle_session_timeout
    "25P03",  # idle_in_transaction_session_timeout
    "53100",  # disk_full
    "53200",  # out_of_memory
    "53300",  # too_many_connections
    "58030",  # io_error
    "28000",  # invalid_authorization_specification: pg_hba.conf or the role changed
    "28P01",  # invalid_password
    "3D000",  # invalid_catalog_name: the database is being restored, or renamed
)
BUSY = ("25006", "53100", "53200", "53300", "57P01", CRASHED, "57P03", "58030")
LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a session says that is cut while a statement begins
    asyncpg.PostgresConnectionError,
    OSError,
)
ANY = (asyncpg.PostgresError, *LOST)
"""What a statement can raise, besides ValueError for an argument that cannot be sent."""


def is_away(error: BaseException) -> bool:
    """True if the database cannot be reached or cannot work now: the same may succeed later."""
    if isinstance(error, ValueError):  # an argument that asyncpg cannot encode
        return False
    return isinstance(error, LOST) or getattr(error, "sqlstate", None) in AWAY


def is_busy(error: BaseException) -> bool:
    """True if a server that is there cannot serve now: it starts, is full, or may not write."""
    return getattr(error, "sqlstate", None) in BUSY


def reason(error: BaseException) -> str:
    """The error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_unstorable(error: BaseException) -> bool:
    """True if PostgreSQL cannot hold a value, so that no repetition would help."""
    return isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError))


def from_sqlstate(error: asyncpg.PostgresError) -> PgflowsError | None:
    """The error of pgflows that an SQLSTATE stands for; None for PostgreSQL's own."""
    code = error.sqlstate or ""
    cls: type[PgflowsError] | None = BY_SQLSTATE.get(code)
    if cls is None and code.startswith("PF1"):
        cls = InvalidRequest
    if cls is None:
        return None
    data: dict[str, Any] = {}
    if error.detail and error.detail.startswith("{"):
        data = json.loads(error.detail)
    if error.hint:
        data["hint"] = error.hint
    return cls(str(error.args[0]) if error.args else None, **data)
