"""pgflows.start: one way in, for every role that may, in any transaction."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, ConfigDict

from pgflows.database import connections as db
from tests.ledger.conftest import Books


class Item(BaseModel):
    name: str


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    order_id: str
    count: int
    price: float
    note: str | None
    items: list[Item]
    gift: bool = False
    item: Item = Item(name="x")


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


ORDER: dict[str, Any] = {
    "order_id": "A", "count": 2, "price": 1.5, "note": None, "items": [{"name": "x"}],
}  # fmt: skip


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ORDER.items() if key != name}


@pytest.mark.parametrize(
    "given",
    [
        ORDER,
        ORDER | {"note": "n", "gift": True, "price": 3, "item": {"name": "y"}},
        ORDER | {"count": 2.0},
    ],
)
async def test_an_input_that_fits_starts(books: Books, given: Any) -> None:
    await books.define("w", Order.model_json_schema())
    run = await books.start(given)
    kept = await books.owner.fetchrow("select instance_id, input from pgflows.instances")
    assert kept is not None
    assert tuple(kept) == (run.instance_id, given)


@pytest.mark.parametrize(
    ("given", "field", "expected", "says"),
    [
        (without("order_id"), "order_id", "string", "required field order_id is missing"),
        (without("note"), "note", "string or null", "required field note is missing"),
        (ORDER | {"count": 2.5}, "count", "integer", "field count is of the wrong type: number"),
        (ORDER | {"count": "2"}, "count", "integer", "field count is of the wrong type: string"),
        (ORDER | {"gift": 1}, "gift", "boolean", "field gift is of the wrong type: number"),
        (ORDER | {"items": {}}, "items", "array", "field items is of the wrong type: object"),
        (ORDER | {"item": "x"}, "item", "Item", "field item is of the wrong type: string"),
        (ORDER | {"note": 1}, "note", "string or null", "field note is of the wrong type: number"),
        (ORDER | {"more": 1}, "more", "one of the fields of the model", "field more is not known"),
        ([], None, "object", "the input must be an object, not array"),
    ],
)
async def test_an_input_that_does_not_fit_is_told_which_field(
    books: Books, given: Any, field: str | None, expected: str, says: str
) -> None:
    await books.define("w", Order.model_json_schema())
    with pytest.raises(asyncpg.PostgresError) as e:
        await books.owner.execute("select pgflows.start('w', $1)", given)
    assert (e.value.sqlstate, e.value.hint) == ("PF011", f"expected {expected}")
    assert says in str(e.value)
    assert json.loads(e.value.detail or "") == {
        "workflow": "w",
        "field": field,
        "expected": expected,
    }


async def test_no_input_at_all_does_not_fit(books: Books) -> None:
    await books.define()
    with pytest.raises(asyncpg.PostgresError, match="must be an object, not null"):
        await books.owner.execute("select pgflows.start('w', null)")


async def test_a_model_that_holds_itself_is_checked_too(books: Books) -> None:
    await books.define("w", Tree.model_json_schema())
    await books.start({"name": "a", "children": [{"name": "b"}]})
    with pytest.raises(asyncpg.PostgresError, match="required field name is missing"):
        await books.start({"children": []})


async def test_an_unknown_workflow_is_told_the_known_ones(books: Books) -> None:
    await books.define("known")
    with pytest.raises(asyncpg.PostgresError) as e:
        await books.owner.execute("select pgflows.start('other', '{}')")
    assert (e.value.sqlstate, e.value.hint) == ("PF010", "known workflows: known")


async def test_an_input_beyond_the_limit_says_both_sizes(books: Books) -> None:
    await books.owner.execute("update pgflows.settings set value = '100'")
    with pytest.raises(asyncpg.PostgresError) as e:
        await books.start({"text": "x" * 200})
    assert e.value.sqlstate == "PF012"
    assert json.loads(e.value.detail or "") == {"bytes": 212, "limit": 100}


async def test_a_key_starts_one_instance(books: Books) -> None:
    first = await books.start({"a": 1}, key="k")
    again = await books.start({"a": 1}, key="k")
    assert first == again
    with pytest.raises(asyncpg.PostgresError) as e:
        await books.start({"a": 2}, key="k")
    assert e.value.sqlstate == "PF013"
    assert json.loads(e.value.detail or "")["instance_id"] == str(first.instance_id)


async def test_starts_with_one_key_at_the_same_time_get_one_instance(books: Books) -> None:
    await books.define()
    conns = [await db.connect(books.database.dsn) for _ in range(8)]
    statement = "select pgflows.start('w', '{}', 'key')"
    started = await asyncio.gather(*(c.fetchval(statement) for c in conns))
    for conn in conns:
        await conn.close()
    assert len(set(started)) == 1
    assert await books.owner.fetchval("select count(*) from df.instances") == 1


async def test_a_key_waits_for_the_transaction_that_uses_it(books: Books) -> None:
    await books.define()
    statement = "select pgflows.start('w', '{}', 'key')"
    other = await db.connect(books.database.dsn)
    transaction = other.transaction()
    await transaction.start()
    rolled_back = await other.fetchval(statement)
    waiting = asyncio.create_task(books.owner.fetchval(statement))
    await books.until_blocked()
    assert not waiting.done()
    await transaction.rollback()
    assert await waiting != rolled_back
    await other.close()


async def test_a_rollback_leaves_nothing(books: Books) -> None:
    await books.define()
    transaction = books.owner.transaction()
    await transaction.start()
    await books.start()
    await transaction.rollback()
    for table in ("pgflows.instances", "pgflows.df_runs", "pgflows.frames", "df.instances"):
        assert await books.owner.fetchval(f"select count(*) from {table}") == 0  # noqa: S608


async def test_a_role_with_execute_may_start_and_nothing_else(books: Books) -> None:
    await books.define()
    admin = await asyncpg.connect(books.database.admin_dsn)
    await admin.execute("drop role if exists shop")
    await admin.execute("create role shop login")
    try:
        shop = await db.connect(books.database.as_role("shop"))
        start = "select pgflows.start('w', '{}')"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.fetchval(start)
        await admin.execute("grant usage on schema pgflows to shop")
        await admin.execute("grant execute on function pgflows.start to shop")
        instance_id = await shop.fetchval(start)
        for refused in (
            "select * from pgflows.instances",
            "select * from pgflows.signing_keys",
            "select * from pgflows.run_login",
            "select pgflows.live_keys()",
            "select pgflows.take('00000000', 'main', 0)",
            "select pgflows._restart('x', 'y')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await shop.execute(refused)
        await shop.close()
    finally:
        await admin.execute("drop owned by shop")
        await admin.execute("drop role shop")
        await admin.close()
    row = await books.owner.fetchrow(
        "select i.started_by, r.submitted_by::text from pgflows.instances i "
        "join pgflows.df_runs r using (instance_id) where instance_id = $1", instance_id,
    )  # fmt: skip
    assert row is not None
    assert tuple(row) == ("shop", "pgflows_run")


async def test_instances_are_ordered_by_their_start(books: Books) -> None:
    ids = [(await books.start()).instance_id for _ in range(20)]
    assert ids == sorted(ids)
    assert {i.version for i in ids} == {7}


async def test_the_version_defined_last_is_started(books: Books) -> None:
    await books.define("w", version="1")
    await books.define("w", version="2")
    await books.start()
    assert await books.owner.fetchval("select version from pgflows.instances") == "2"
    await books.define("w", version="1")
    await books.start()
    assert await books.owner.fetchval("select count(*) from pgflows.workflows where active") == 1


NAMED = 'it"s a \\ $name'
SIMPLE = {
    "type": "object",
    "properties": {NAMED: {"type": "string"}, "n": {"type": "number"}, "list": {"type": "array"}},
    "required": [NAMED],
}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({NAMED: "x"}, None),
        ({NAMED: "x", "n": 1.5, "list": [], "other": None}, None),
        ({}, "is missing"),
        ({NAMED: None}, "is of the wrong type: null"),
        ({NAMED: "x", "n": "1"}, "is of the wrong type: string"),
        ({NAMED: "x", "list": {}}, "is of the wrong type: object"),
        ([{NAMED: "x"}], "must be an object"),
    ],
)
async def test_a_simple_model_is_checked_at_once(
    books: Books, given: Any, problem: str | None
) -> None:
    await books.define(schema=SIMPLE)
    plain = await books.owner.fetchval(
        "select $1::jsonb @@ w.plain_input from pgflows.workflows w", given
    )
    assert (plain is True) == (problem is None)
    if problem is None:
        assert await books.start(given)
    else:
        with pytest.raises(asyncpg.PostgresError, match=problem) as e:
            await books.owner.fetchval("select pgflows.start('w', $1)", given)
        assert e.value.sqlstate == "PF011"


async def test_start_with_a_key_that_an_open_transaction_uses_says_so_after_a_while(
    books: Books,
) -> None:
    await books.define()
    other = await db.connect(books.database.dsn)
    async with other.transaction():
        await other.execute("select pgflows.start('w', '{}', 'key-1')")
        with pytest.raises(
            asyncpg.PostgresError, match="workflow w with idempotency key key-1"
        ) as e:
            await books.start(key="key-1")
    assert e.value.sqlstate == "PF015"
    assert json.loads(e.value.detail or "") == {"workflow": "w", "idempotency_key": "key-1"}
    found = await other.fetchval("select instance_id from pgflows.instances")
    assert (await books.start(key="key-1")).instance_id == found
    await other.close()


async def test_cancel_of_what_an_open_transaction_changes_says_so_after_a_while(
    books: Books,
) -> None:
    run = await books.start()
    cancel = "select pgflows.cancel_instance($1)"
    other = await db.connect(books.database.dsn)
    async with other.transaction():
        await other.execute(cancel, run.df_id)
        with pytest.raises(asyncpg.PostgresError, match=str(run.instance_id)) as e:
            await books.owner.execute(cancel, run.df_id)
    assert e.value.sqlstate == "PF015"
    await other.close()


async def test_start_instance_tells_whether_the_key_had_started_it_before(books: Books) -> None:
    await books.define()
    start = "select pgflows.start_instance('w', '{}', $1, null, '{}') ->> 'created'"
    keys = ("a", "a", None, None, "b")
    assert [await books.owner.fetchval(start, k) for k in keys] == [
        "true", "false", "true", "true", "true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ('{"a": ' + "[" * 3000 + "]" * 3000 + "}", "more than 100 levels of nesting"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "more than 100 levels of nesting"),
        ('{"a": {"b": -' + "1" * 4001 + "}}", "a number of more than 4000 digits"),
        ('{"a": [1e5000]}', "a number of more than 4000 digits"),
        ('{"a": 1e-5000}', "a number of more than 4000 digits"),
    ],
    ids=["many levels", "levels", "digits", "exponent", "fraction"],
)
@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "properties": {}}])
@pytest.mark.parametrize("what", ["input", "attributes"])
async def test_start_refuses_what_could_not_be_shown(
    books: Books, given: str, fault: str, schema: Any, what: str
) -> None:
    await books.define("w", schema)
    conn = await asyncpg.connect(books.database.dsn)  # a session that takes JSON as it is written
    values = (given, "{}") if what == "input" else ("{}", given)
    with pytest.raises(asyncpg.PostgresError, match=fault) as e:
        await conn.execute("select pgflows.start('w', $1, null, null, $2)", *values)
    await conn.close()
    assert e.value.sqlstate == "PF011"
    assert json.loads(e.value.detail or "")["field"] == what


async def test_start_takes_what_is_within_the_limits(books: Books) -> None:
    await books.define("w", {"type": "object", "properties": {}})
    deep: list[Any] = []
    for _ in range(98):
        deep = [deep]
    kept = {"digits": 10**4000 - 1, "deep": deep, "text": "9" * 5000, "rows": [{}] * 200}
    run = await books.start(kept)
    statement = "select input from pgflows.instances where instance_id = $1"
    assert await books.owner.fetchval(statement, run.instance_id) == kept
