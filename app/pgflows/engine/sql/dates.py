"""Dates and times of users' results: those that Python has no value for are refused, not changed.

asyncpg would read `infinity` as the last moment of the year 9999.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from pgflows.database.connections import Connection

# How PostgreSQL sends infinity and -infinity: days since 2000, microseconds since 2000.
INFINITE_DAYS = (2**31 - 1, -(2**31))
INFINITE_MICROSECONDS = (2**63 - 1, -(2**63))
FIRST_DAY = dt.date(2000, 1, 1)
START = dt.datetime(2000, 1, 1)
START_UTC = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


async def set_codecs(conn: Connection) -> None:
    """Decoders that raise ValueError or OverflowError for what is not in the years 1 to 9999."""
    decoders = {"date": _date, "timestamp": _timestamp, "timestamptz": _timestamptz}
    for name, decoder in decoders.items():
        await conn.set_type_codec(
            name, schema="pg_catalog", encoder=_refuse, decoder=decoder, format="tuple"
        )


def _date(sent: tuple[int]) -> dt.date:
    if sent[0] in INFINITE_DAYS:
        raise ValueError("infinity is not a date")
    return FIRST_DAY + dt.timedelta(days=sent[0])


def _timestamp(sent: tuple[int]) -> dt.datetime:
    return START + _since_2000(sent)


def _timestamptz(sent: tuple[int]) -> dt.datetime:
    return START_UTC + _since_2000(sent)


def _since_2000(sent: tuple[int]) -> dt.timedelta:
    if sent[0] in INFINITE_MICROSECONDS:
        raise ValueError("infinity is not a time")
    return dt.timedelta(microseconds=sent[0])


def _refuse(_value: Any) -> Any:
    raise TypeError("a node's statement has no arguments")
