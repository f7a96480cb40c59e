"""Whether the registered step services answer, and whether anybody knows the steps asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from pgflows.cli.doctor.findings import OK, WARNING, Finding, Look

MOST_SERVICES = 5  # the newest registered base URLs are asked
PATIENCE_SECONDS = 3.0
OVERDUE = (
    "select s.step, count(*) as runs, max(s.waiting ->> 'reason') as reason "
    "from pgflows.step_runs s "
    "join pgflows.instances i on i.instance_id = s.instance_id "
    "and i.status in ('pending', 'running') and i.status <> 'completed' "  # has an index
    "where s.status = 'requested' and s.retry_at is null "
    "and (s.attempts = 0 or s.waiting is not null) "
    "and s.requested_at < clock_timestamp() - interval '30 seconds' "
    "group by s.step order by 2 desc, 1 limit 5"
)


async def services(look: Look) -> AsyncIterator[Finding]:
    """Asks as an engine on this machine would: past proxies, and without following redirects."""
    rows = await look.conn.fetch(
        "select url from pgflows.base_urls order by registered_at desc limit $1", MOST_SERVICES
    )
    if not rows:
        yield Finding(WARNING, "step service", "none registered", "pgflows serve")
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        for row in rows:
            what = f"step service {row['url']}"
            try:
                async with http.get(f"{row['url']}/healthz", allow_redirects=False) as answer:
                    status = answer.status
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as e:
                advice = "start it, or set PGFLOWS_BASE_URL to where engines reach it"
                reason = str(e) or type(e).__name__
                yield Finding(WARNING, what, f"not reachable: {reason}", advice)
                continue
            if status == 200:
                yield Finding(OK, what, "answers")
            else:
                advice = "something else answers there: set PGFLOWS_BASE_URL to the service itself"
                yield Finding(WARNING, what, f"answers {status} to GET /healthz", advice)


async def overdue(look: Look) -> AsyncIterator[Finding]:
    """Steps that runs wait for and nobody has begun. Which steps a service has, it alone knows."""
    for row in await look.conn.fetch(OVERDUE):
        found = f"asked for by {row['runs']} runs for more than 30 s, and no service takes it"
        if row["reason"]:
            found += f"; one of them was answered: {row['reason']}"
        advice = "is a service up whose application has this step?"
        yield Finding(WARNING, f"step {row['step']}", found, advice)
