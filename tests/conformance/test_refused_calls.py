"""What calls are refused, in the extension's words."""

from __future__ import annotations

import asyncpg
import pytest

from pgflows.database.connections import Connection


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("df.start('select 1', transaction_mode => 'later')", 'invalid transaction_mode "later"'),
        ("df.signal('', 'go')", "Instance ID cannot be empty"),
        ("df.signal('deadbeef', '')", "Signal name cannot be empty"),
        ("df.signal('deadbeef', 'go')", "Instance not found or access denied: deadbeef"),
        ("df.cancel('deadbeef')", "Instance not found or access denied: deadbeef"),
        ("df.list_instances(null, 5, null, 'nothing')", "invalid after_cursor"),
        ("df.http_multipart('http://h/', 'POST', null)", "parts is required and cannot be NULL"),
        ("df.http_multipart('http://h/', 'POST', '{}')", "parts must be a JSON array of part obje"),
        ("df.http_multipart('http://h/', 'POST', '[]')", "parts must contain at least one part"),
        ("df.http('http://h/', 'HEAD')", "Invalid HTTP method: HEAD. Must be "),
        ("df.http('ftp://h/')", "unsupported URL scheme 'ftp'"),
        ("df.sleep(-1)", "Sleep duration must be non-negative"),
    ],
)
async def test_a_refusal_holds_the_words_that_handlers_look_for(
    actor: Connection, call: str, says: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await actor.fetchval(f"select {call}")
    assert says in str(refused.value)


@pytest.mark.parametrize("mode", ["caller", "CALLER", "Caller"])
async def test_a_transaction_mode_is_read_in_any_case(actor: Connection, mode: str) -> None:
    start = "select df.start('select 1', transaction_mode => $1)"
    instance = await actor.fetchval(start, mode)
    assert await actor.fetchval("select df.await_instance($1)", instance) == "completed"
