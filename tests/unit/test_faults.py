"""Which errors mean that the database is away, and which that it cannot hold a value."""

from __future__ import annotations

import asyncpg
import pytest

from pgflows.database.faults import is_away, is_unstorable


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.AdminShutdownError("terminating"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.ReadOnlySQLTransactionError("a standby"),
        asyncpg.DiskFullError("no space left"),
        asyncpg.TooManyConnectionsError("sorry"),
        asyncpg.InvalidPasswordError("rotated"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_database_that_went_away(error: Exception) -> None:
    assert is_away(error)
    assert not is_unstorable(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UntranslatableCharacterError("\\u0000"),
        asyncpg.NumericValueOutOfRangeError("1e999999"),
        asyncpg.StatementTooComplexError("stack depth"),
        asyncpg.exceptions._base.DataError("invalid input for query argument $1"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_value_that_cannot_be_held(error: Exception) -> None:
    assert is_unstorable(error)
    assert not is_away(error)


@pytest.mark.parametrize(
    "error",
    [asyncpg.DeadlockDetectedError("x"), asyncpg.QueryCanceledError("x")],
    ids=lambda e: type(e).__name__,
)
def test_what_may_go_well_the_next_time(error: Exception) -> None:
    assert not is_away(error)
    assert not is_unstorable(error)
