"""The recorded behaviour of the extension, case by case.

All cases run at once, on one database with one engine; each test then looks at its own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.conformance.corpus.differences import DIFFERENCES, Difference
from tests.conformance.corpus.peer import serving
from tests.conformance.corpus.recorder import Record, Recorder, lines, without_words
from tests.conftest import OWNER, RUN, Database
from tests.conftest import _dsn as _at
from tests.df.conftest import USER, make_roles, running_engine

CASES = {case["name"]: case for case in lines("cases.jsonl")}
RECORDED = {record["name"]: record for record in lines("recorded-0.2.6.jsonl")}
NOWHERE = "http://127.0.0.1:9"
DOCUMENT = Path(__file__).parents[2] / "docs" / "differences.md"

pytestmark = pytest.mark.xdist_group("corpus")


@pytest.fixture(scope="session")
def told(server_dsn: str, template: str, request: pytest.FixtureRequest) -> dict[str, Record]:
    """What this server did with every case that is asked for."""
    wanted = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_case"
    } | {n for n in CASES if n.split()[0] in LOOKED_FOR}
    cases = [case for name, case in CASES.items() if name in wanted]
    return asyncio.run(_tell(server_dsn, template, cases))


async def _tell(admin_dsn: str, template: str, cases: list[dict[str, Any]]) -> dict[str, Record]:
    name = f"corpus_{template}"
    owner, run = (f"{_at(admin_dsn, role, name)}" for role in (OWNER, RUN))
    database = Database(name, owner, run, _at(admin_dsn, "postgres", name))
    conn = await asyncpg.connect(admin_dsn)
    await conn.execute(f"drop database if exists {database.name} with (force)")
    await conn.execute(f"create database {database.name} template {template} owner {OWNER}")
    try:
        await make_roles(database)
        with serving() as peer:
            async with running_engine(database, http_targets=(peer, NOWHERE)):
                recorder = Recorder(database.as_role(USER), peer, patience=0.3)
                return await recorder.record(cases)
    finally:
        await conn.execute(f"drop database {database.name} with (force)")
        await conn.close()


@pytest.mark.parametrize("name", CASES)
def test_case(told: dict[str, Record], name: str) -> None:
    ours = told[name]
    difference = DIFFERENCES.get(name, Difference())
    assert without_words(ours) == without_words(difference.apply(RECORDED[name]))


# what a handler would look for in a message, case by case
LOOKED_FOR = {
    "refuse-00": "Sleep duration must be non-negative",
    "refuse-02": "Blocked: unsupported URL scheme 'ftp'. Only http and https are allowed",
    "refuse-03": "Blocked: unsupported URL scheme 'no-scheme'",
    "refuse-05": "Invalid HTTP method: TRACE",
    "refuse-06": "Timeout must be positive",
    "refuse-07": "df.as: result name '1a' is not a valid identifier",
    "refuse-09": "df.as: result name cannot be empty",
    "refuse-10": "Invalid cron expression 'nonsense'",
    "refuse-13": "Signal name cannot be empty",
    "refuse-14": "Timeout must be positive",
    "refuse-19": "parts must contain at least one part",
    "refuse-20": "Invalid HTTP method for multipart: GET",
    "refuse-26": 'database "no_such_db" does not exist',
    "refuse-27": 'invalid transaction_mode "maybe"',
    "refuse-36": "Instance not found or access denied: deadbeef",
    "refuse-37": "Instance not found or access denied: deadbeef",
    "list-limit": "limit_count (5000) exceeds pg_durable.list_instances_max_limit (1000)",
    "deep-refused": "Graph exceeds maximum nesting depth of 256",
}


@pytest.mark.parametrize("case", LOOKED_FOR)
def test_messages_hold_what_handlers_look_for(told: dict[str, Record], case: str) -> None:
    [name] = [n for n in CASES if n == case or n.startswith(f"{case} ")]
    assert LOOKED_FOR[case] in RECORDED[name]["error"]
    assert LOOKED_FOR[case] in told[name]["error"]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_documented_and_real(name: str) -> None:
    assert f"`{name}`" in DOCUMENT.read_text(encoding="utf-8")
    assert DIFFERENCES[name].apply(RECORDED[name]) != RECORDED[name]
