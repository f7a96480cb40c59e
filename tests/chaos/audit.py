"""What must be true when everything is over, and what must not be left behind."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

OUTPUT = "select output from df.instance_info($1)"
WRONG_BALANCES = """
select a.id from public.accounts a where a.balance <> 1000
  - (select coalesce(sum(t.amount), 0) from public.transfers t where t.source = a.id)
  + (select coalesce(sum(t.amount), 0) from public.transfers t where t.target = a.id)
"""
LEFT = {
    "sessions": "select count(*) from pg_stat_activity where application_name like 'pgflows%'",
    "advisory locks": "select count(*) from pg_locks where locktype = 'advisory'",
    "claims": "select count(*) from df._work where owner is not null",
    "engines' rows": "select count(*) from df._worker_epoch",
    "rows of work": "select count(*) from df._work",
    "signals": "select count(*) from df._signals",
    "requests": "select count(*) from df._requests",
    "submissions": "select count(*) from df._submissions",
}
LEAKS = re.compile(r"Task was destroyed|was never retrieved|was never awaited|Unclosed")


@dataclass
class Books:
    """What was started, and what must be true of it at the end."""

    started: dict[str, str] = field(default_factory=dict)
    orders: int = 0
    moved: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def check(self, good: bool, text: str) -> None:
        if not good:
            self.problems.append(text)


async def audit(dsn: str, books: Books) -> None:
    """Every run is terminal and right; nothing happened twice."""
    conn = await asyncpg.connect(dsn)
    states = {r[0]: r[1] for r in await conn.fetch("select id, status from df.instances")}
    for instance, state in states.items():
        if state != "completed":
            kind = books.started.get(instance, "order or unconfirmed")
            said = await conn.fetchval(OUTPUT, instance)
            books.check(False, f"{kind} instance {instance} is {state}: {said}")
    lost = books.started.keys() - states.keys()
    books.check(not lost, f"instances are gone: {sorted(lost)[:5]}")
    open_nodes = await conn.fetchval("select count(*) from df.nodes where status = 'failed'")
    books.check(open_nodes == 0, f"{open_nodes} nodes failed")

    total = await conn.fetchval("select sum(balance) from public.accounts")
    books.check(total == 20_000, f"money was made or lost: {total}")
    wrong = [r[0] for r in await conn.fetch(WRONG_BALANCES)]
    books.check(not wrong, f"the balances of accounts {wrong} are not the sum of their transfers")
    moved = {r[0] for r in await conn.fetch("select id from public.transfers")}
    books.check(books.moved <= moved, f"transfers are missing: {sorted(books.moved - moved)[:5]}")

    orders = await conn.fetch("select * from pgflows.instances where status <> 'completed'")
    books.check(not orders, f"{len(orders)} orders are not completed: {orders[:2]}")
    [row] = await conn.fetch("select * from pgflows.audit('process_order')")
    books.check(row["recorded_twice"] == 0, f"{row['recorded_twice']} steps were recorded twice")
    books.check(row["lost"] == 0, f"{row['lost']} steps were lost")
    books.check(row["completed"] >= books.orders, f"{row['completed']} of {books.orders} orders")
    await conn.close()


async def check_leaks(
    admin_dsn: str, dsn: str, books: Books, logs: dict[str, str], directory: Path
) -> None:
    """After the processes stopped in order nothing of theirs is left."""
    conn = await asyncpg.connect(dsn)
    for what, query in LEFT.items():
        left = await conn.fetchval(query)
        books.check(left == 0, f"{left} {what} were left behind")
    await conn.close()
    conn = await asyncpg.connect(admin_dsn)
    left = await conn.fetchval("select count(*) from pg_ls_tmpdir()")
    books.check(left == 0, f"{left} temporary files were left behind")
    await conn.close()
    for name, text in logs.items():
        leaks = sorted(set(LEAKS.findall(text)))
        books.check(not leaks, f"{name} leaks: {leaks}")
    found = await asyncio.to_thread(os.listdir, directory)
    strange = [name for name in found if name != "pg" and not name.endswith(".log")]
    books.check(not strange, f"files were left behind: {sorted(strange)}")
