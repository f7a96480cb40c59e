"""Reading and ending instances that no engine runs."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pgflows.database.connections import Connection


async def start(conn: Connection, graph: str = "'select 1'", label: str | None = None) -> str:
    found: str = await conn.fetchval(f"select df.start({graph}, $1)", label)
    return found


async def test_pages_follow_one_another_newest_first(user: Connection) -> None:
    started = [await start(user, label=f"l{n % 2}") for n in range(7)]
    seen, cursor, pages = [], None, 0
    while True:
        page = await user.fetch("select * from df.list_instances(null, 3, null, $1)", cursor)
        seen += [row["instance_id"] for row in page]
        pages += 1
        assert len({row["next_cursor"] for row in page}) == 1
        cursor = page[0]["next_cursor"]
        if cursor is None:
            break
    assert (seen, pages) == (started[::-1], 3)
    labelled = await user.fetch("select * from df.list_instances('pending', 10, 'l1')")
    assert [row["instance_id"] for row in labelled] == started[1::2][::-1]
    assert all(row["next_cursor"] is None for row in labelled)


async def test_rows_of_one_moment_are_on_one_page_each(user: Connection, owner: Connection) -> None:
    started = {await start(user) for _ in range(6)}
    await owner.execute("update df.instances set created_at = '2024-01-01 00:00:00.123457+00'")
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = await user.fetch("select * from df.list_instances(null, 2, null, $1)", cursor)
        seen += [row["instance_id"] for row in page]
        cursor = page[0]["next_cursor"]
    assert seen == sorted(started)
    assert cursor is None


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("df.list_instances(null, 1001)", "PF103"),
        ("df.list_instances(null, 0)", "PF104"),
        ("df.list_instances(null, 5, null, 'zz')", "PF104"),
        ("df.list_instances(null, 5, null, '61')", "PF104"),
        ("df.list_instances(null, 5, null, '')", "PF104"),
    ],
)
async def test_a_bad_limit_or_cursor_is_refused(user: Connection, call: str, code: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await user.fetch(f"select * from {call}")  # noqa: S608
    assert refused.value.sqlstate == code


async def test_the_limit_of_a_page_is_a_setting(user: Connection) -> None:
    await user.execute("set pg_durable.list_instances_max_limit = 5000")
    assert await user.fetch("select * from df.list_instances(null, 5000)") == []
    await user.execute("set pg_durable.list_instances_max_limit = 3")
    with pytest.raises(
        asyncpg.PostgresError, match=r"limit_count \(4\) exceeds .*_max_limit \(3\)"
    ):
        await user.fetch("select * from df.list_instances(null, 4, null)")


async def test_a_cancelled_instance_stays_cancelled(user: Connection, owner: Connection) -> None:
    instance = await start(user, "df.seq('select 1', df.sleep(5))")
    answer = await user.fetchval("select df.cancel($1, 'no longer wanted')", instance)
    assert answer == f"Instance {instance} cancelled: no longer wanted"
    await user.fetchval("select df.cancel($1, 'again')", instance)
    info = await user.fetchrow("select * from df.instance_info($1)", instance)
    assert info is not None
    assert (info["status"], info["output"]) == ("cancelled", "canceled: no longer wanted")
    assert await user.fetchval("select df.result($1)", instance) is None
    assert await user.fetchval("select df.await_instance($1, 1)", instance) == "cancelled"
    assert await owner.fetchval("select count(*) from df._work") == 0
    [execution] = await user.fetch("select * from df.instance_executions($1)", instance)
    assert (execution["status"], execution["output"]) == ("Failed", info["output"])


async def test_engines_are_told_of_starts_cancels_and_signals(
    user: Connection, owner: Connection
) -> None:
    heard: list[tuple[str, object]] = []
    for channel in ("df_work", "df_cancel", "df_signal"):
        await owner.add_listener(channel, lambda _c, _p, on, payload: heard.append((on, payload)))
    instance = await start(user)
    await owner.execute("update df._work set owner = gen_random_uuid()")
    assert await user.fetchval("select df.signal($1, 'go', 'no json')", instance) == "OK"
    assert await owner.fetchval("select data from df._signals") == '"no json"'
    await user.fetchval("select df.cancel($1)", instance)
    await owner.execute("select 1")
    assert heard == [("df_work", ""), ("df_signal", instance), ("df_cancel", instance)]
    assert await user.fetchval("select df.signal($1, 'late')", instance) == "OK"
    assert await owner.fetchval("select count(*) from df._signals") == 0


async def test_a_signal_wakes_a_parked_instance(user: Connection, owner: Connection) -> None:
    instance = await start(user)
    await owner.execute("update df._work set wake_at = 'infinity'")
    await user.fetchval("select df.signal($1, 'go')", instance)
    assert await owner.fetchval("select wake_at <= clock_timestamp() from df._work") is True


async def test_waiting_ends_with_an_error_where_it_cannot_succeed(user: Connection) -> None:
    instance = await start(user)
    with pytest.raises(asyncpg.QueryCanceledError, match=f"Timeout after 1s .* {instance}"):
        await user.fetchval("select df.await_instance($1, 1)", instance)
    with pytest.raises(asyncpg.PostgresError, match="started in this transaction"):
        await user.fetchval("select df.await_instance(df.start('select 1'))")
    async with user.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.PostgresError, match="never seen"):
            async with user.transaction():
                await user.fetchval("select df.await_instance($1)", instance)


@pytest.mark.parametrize(
    "call", ["setvar('a', 'b')", "unsetvar('a')", "clearvars()", "await_instance('0')"]
)
async def test_what_a_runs_own_statements_may_not_call(user: Connection, call: str) -> None:
    await user.execute("set df.in_workflow = 'true'")
    with pytest.raises(
        asyncpg.PostgresError, match="cannot be called inside a workflow"
    ) as refused:
        await user.fetchval(f"select df.{call}")
    assert refused.value.sqlstate == "PF105"


async def test_an_instance_is_drawn_with_a_mark_per_node(
    user: Connection, owner: Connection
) -> None:
    instance = await start(user, "df.seq('select 1', df.if('select true', 'yes', 'no'))", "lab")
    set_nodes = "update df.nodes set status = $1, status_details = $2 where query = any ($3)"
    stamp = json.dumps({"execution_id": f"{instance}::1"})
    await owner.execute(set_nodes, "completed", stamp, ["select 1", "select true", "yes"])
    await owner.execute(
        "update df.nodes set status = 'completed', result = '{\"rows\": []}', status_details = $1 "
        "where node_type in ('THEN', 'IF')",
        stamp,
    )
    await owner.execute("update df.instances set status = 'completed'")
    assert (await user.fetchval("select df.explain($1)", instance)).split("\n") == [
        f"Instance: {instance} (lab)",
        "Status:   ✓ Completed",
        'Output:   {"rows":[]}',
        "",
        "SQL: select 1               ✓ Completed",
        "→ IF                        ✓ Completed",
        "    ? condition:            ",
        "      └─SQL: select true    ✓ Completed",
        "    ✓ then:                 ",
        "      └─SQL: yes            ✓ Completed",
        "    ✗ else:                 ",
        "      └─SQL: no             ⊘ Skipped",
    ]


@pytest.mark.parametrize(
    "value",
    [
        '{"a": [1, 2.50, null], "b, c: d": "x, \\"y\\": \\\\"}',
        '"a: b, c"',
        "[]",
        "null",
        '[[], {}, ", "]',
    ],
)
async def test_compact_json_loses_spaces_outside_strings_only(
    owner: Connection, value: str
) -> None:
    text = await owner.fetchval("select df._compact($1::jsonb)", value)
    assert json.loads(text) == json.loads(value)
    assert text == json.dumps(json.loads(value), separators=(",", ":")).replace("2.5,", "2.50,")


async def test_metrics_count_everybodys_instances(user: Connection, owner: Connection) -> None:
    await start(user)
    await owner.fetchval("select df.cancel($1)", await start(user))
    figures = await owner.fetchrow("select * from df.metrics()")
    assert figures is not None
    assert (figures["total_instances"], figures["running_instances"]) == (2, 1)
