"""Runs that make the engine itself fail: tried a few times, then failed, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psutil
import pytest
from aiohttp import web

from pgflows.database.embedded import EmbeddedServer
from pgflows.database.faults import LOST
from tests.acceptance.peers import serving
from tests.acceptance.runs import EFFECTS, Runs, effect
from tests.conftest import Database, Process, Spawn, until

# df.start refuses such nodes, so they are damaged afterwards
DAMAGE = "update df.nodes set query = '[not json' where node_type in ('JOIN', 'SIGNAL')"
ENDS_ITSELF = "select pg_terminate_backend(pg_backend_pid())"
AT_ONCE = "update df._work set wake_at = clock_timestamp() where wake_at > clock_timestamp()"
SILENT = (
    "update df._worker_epoch set last_seen_at = clock_timestamp() - interval '3.1 s' "
    "where last_seen_at < clock_timestamp() - interval '1.5 s' "
    "and last_seen_at > clock_timestamp() - interval '3 s'"
)
UP_FOR_A_WHILE = "select clock_timestamp() - df._up_since() > interval '3.5 s'"
DEAD = "update df._worker_epoch set last_seen_at = clock_timestamp() - interval '3.1 s'"


async def hurry(runs: Runs) -> bool:
    """Lets the pauses between tries pass; true when nothing is left to try."""
    await runs.conn.execute(AT_ONCE)
    return not await runs.conn.fetchval("select exists (select from df._work)")


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("df.join('select 1', 'select 2')", "the graph cannot be read: JSONDecodeError"),
        ("df.wait_for_signal('go')", "the engine failed on this instance: JSONDecodeError"),
        (f"df.sql('{ENDS_ITSELF}')", "the session of its statement ended"),
    ],
)
async def test_what_engines_fail_on_is_tried_five_times_and_fails(
    database: Database, spawn: Spawn, runs: Runs, graph: str, says: str
) -> None:
    poison = await runs.start(f"df.seq({graph}, {effect('after')})")
    await runs.conn.execute(DAMAGE)
    engines = [spawn("engine", dsn=database.dsn) for _ in range(2)]
    good = [await runs.start(effect(f"good {n}")) for n in range(20)]
    for instance in good:
        assert await runs.ended(instance) == "completed"
    await until(lambda: hurry(runs), what="the end of all tries")
    assert await runs.status(poison) == "failed"
    assert says in await runs.output(poison)
    assert await runs.effects() == sorted(f"good {n}" for n in range(20))
    tries = sum(e.output().count(f"instance {poison}: ") for e in engines)
    assert tries == 5
    assert all(e.output().count(" runs\n") == 1 for e in engines), "a session was lost"


async def test_failures_are_counted_from_the_last_progress(runs: Runs) -> None:
    """A run that comes further each time is not given up, however often its engines fail."""
    instance = await runs.start("df.seq('select 1', 'select 2')")
    engine = await runs.conn.fetchval("select gen_random_uuid()")
    await runs.conn.execute("select df._open_engine($1)", engine)
    for n in range(12):
        if n % 4 == 3:
            await runs.conn.execute(
                "update df.nodes set status = 'completed', result = '1', "
                "updated_at = clock_timestamp() where instance_id = $1 and node_type = 'SQL'",
                instance,
            )
        await runs.conn.execute(AT_ONCE)
        [claim] = await runs.conn.fetch("select * from df._claim($1, 1)", engine)
        await runs.conn.execute("select df._release($1, $2, 'no')", instance, claim["token"])
        assert await runs.status(instance) == "running"
    assert [(await runs.conn.fetchval("select failures from df._work"))] == [1]


class Killer:
    """A peer that kills the engine that calls it."""

    def __init__(self) -> None:
        self.engines: list[Process] = []
        self.killed = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        for engine in self.engines:
            popen = engine.popen
            if popen is not None and popen.poll() is None:
                connections = psutil.Process(popen.pid).net_connections("tcp")
                if any(c.laddr.port == port for c in connections):
                    self.killed += 1
                    popen.send_signal(signal.SIGKILL)
        return web.Response(text="dead")


@pytest.fixture
async def killer() -> AsyncIterator[tuple[Killer, str]]:
    peer = Killer()
    async with serving(kill=peer.answer) as base:
        yield peer, f"{base}/kill"


@pytest.mark.slow
async def test_a_run_that_kills_its_engines_fails_and_its_neighbours_do_not(
    database: Database, spawn: Spawn, runs: Runs, killer: tuple[Killer, str]
) -> None:
    peer, url = killer
    engines = peer.engines
    poison = await runs.start(f"df.seq(df.http('{url}'), {effect('after')})")
    # they are in the engine's memory each time, too shortly to be parked
    good = [await runs.start(f"df.seq(df.sleep(1), {effect(str(n))})") for n in range(30)]
    for _ in range(2):
        engines.append(spawn("engine", dsn=database.dsn, PGFLOWS_HTTP_TARGETS=f"private:{url}"))

    async def over() -> bool:
        for engine in engines:
            assert engine.popen is not None
            if engine.popen.poll() is not None:
                engine.start()
        await runs.conn.execute(SILENT)
        return await runs.status(poison) == "failed"

    await until(over, 60, "the end of the run that kills")
    assert "at least five engines died" in await runs.output(poison)
    assert 5 <= peer.killed <= 8
    for instance in good:
        assert await runs.ended(instance) == "completed"
    assert await runs.effects() == sorted(str(n) for n in range(30))


class Lives:
    """Engines that claim and die, by the functions that engines call, in a time of their own."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.engine = ""
        self.held: set[str] = set()

    async def begin(self) -> None:
        await until(lambda: self.runs.conn.fetchval(UP_FOR_A_WHILE), what="the server's age")
        self.engine = await self.runs.conn.fetchval("select gen_random_uuid()")
        self.held = set()
        await self.runs.conn.execute("select df._open_engine($1)", self.engine)

    async def claim(self) -> None:
        """Three seconds pass, then the engine takes what is due."""
        await self.runs.conn.execute("update df._work set wake_at = wake_at - interval '3 s'")
        rows = await self.runs.conn.fetch("select * from df._claim($1, 2000)", self.engine)
        self.held |= {r["instance_id"] for r in rows}

    async def die(self) -> None:
        """The engine falls silent, and another notices."""
        await self.runs.conn.execute(DEAD)
        other = await self.runs.conn.fetchval("select gen_random_uuid()")
        for act in ("df._open_engine", "df._heartbeat", "pgflows.worker_close"):
            await self.runs.conn.execute(f"select {act}($1)", other)


async def test_engines_killed_for_other_reasons_fail_no_run(runs: Runs) -> None:
    await runs.conn.execute("select df.start('select 1') from generate_series(1, 1000)")
    lives = Lives(runs)
    for _ in range(12):
        await lives.begin()
        await lives.claim()
        await lives.claim()
        await lives.die()
    assert await runs.states() == {"running": 1000}
    assert await runs.conn.fetchval("select max(wake_at) <= clock_timestamp() from df._work")


async def test_the_run_that_kills_is_found_among_many(runs: Runs) -> None:
    await runs.conn.execute("select df.start('select 1') from generate_series(1, 1000)")
    poison = await runs.start("'select 0'")
    lives = Lives(runs)
    deaths = 0
    await lives.begin()
    for _ in range(200):
        await lives.claim()
        if poison in lives.held:
            await lives.die()
            await lives.begin()
            deaths += 1
        else:
            await runs.conn.execute("delete from df._work where instance_id = any ($1)", lives.held)
            lives.held.clear()
        if not await runs.work(poison):
            break
    assert await runs.status(poison) == "failed"
    assert 5 <= deaths <= 10
    assert (await runs.states())["failed"] == 1


CRASHING = (
    "select pid from pg_stat_activity where state = 'active' and query like '%crashes here%' "
    "and pid <> pg_backend_pid()"
)


async def crash(dsn: str, poison: str) -> bool:
    """Waits until the statement runs and kills the server's process for it; false if it is over."""
    conn = await reconnected(dsn)
    runs = Runs(conn)

    async def found() -> int:
        await runs.conn.execute(AT_ONCE)
        ended = await runs.status(poison) == "failed"
        return -1 if ended else await runs.conn.fetchval(CRASHING)

    pid = await until(found, 30, "the next crash")
    if pid > 0:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(*LOST):
            await conn.fetchval("select pg_sleep(20)")
    conn.terminate()
    return bool(pid > 0)


async def reconnected(dsn: str) -> asyncpg.Connection[Any]:
    async def attempt() -> asyncpg.Connection[Any] | None:
        with contextlib.suppress(asyncpg.CannotConnectNowError, *LOST):
            return await asyncpg.connect(dsn)
        return None

    conn: asyncpg.Connection[Any] = await until(attempt, what="the server")
    return conn


@pytest.mark.slow
async def test_a_statement_that_takes_the_server_down_is_given_up(
    own_server: EmbeddedServer, spawn: Spawn
) -> None:
    """The server's process for it is killed, as if it had run into a bug of the server."""
    dsn = own_server.socket_dsn()
    conn = await asyncpg.connect(dsn)
    await conn.execute(EFFECTS)
    poison = await Runs(conn).start("df.sql('select pg_sleep(60) /* crashes here */ as n')")
    # it is under way at every crash until it is let alone
    good = await Runs(conn).start(f"df.seq('select pg_sleep(1.5) as n', {effect('good')})")
    await conn.close()
    spawn("engine", dsn=dsn)
    crashes = 0
    while await crash(dsn, poison):
        crashes += 1
    runs = Runs(await reconnected(dsn))
    assert 5 <= crashes <= 7  # one that the engine could not see for what it was does not count
    # with or without "and the server too": an engine may get to say the last one before it hears
    assert "the session of its statement ended" in await runs.output(poison)
    assert await runs.ended(good) == "completed"
    assert await runs.effects() == ["good"]
    await runs.conn.close()


@pytest.mark.slow
async def test_a_statement_that_takes_everything_down_is_given_up(
    own_server: EmbeddedServer, spawn: Spawn
) -> None:
    """Server and engine die together, as in a container that runs out of memory."""
    dsn = own_server.socket_dsn()
    conn = await asyncpg.connect(dsn)
    await conn.execute(EFFECTS)
    poison = await Runs(conn).start("df.sql('select pg_sleep(60) /* crashes here */ as n')")
    good = [await Runs(conn).start(f"df.seq('select 1', {effect(str(n))})") for n in range(3)]
    late = await Runs(conn).start(f"df.seq('select pg_sleep(1.5) as n', {effect('late')})")
    await conn.close()
    engine = spawn("engine", dsn=dsn)
    deaths = 0
    while True:
        conn = await reconnected(dsn)
        runs = Runs(conn)

        async def fatal(runs: Runs = runs) -> str:
            if await runs.status(poison) == "failed":
                return "over"
            return "now" if await runs.conn.fetchval(CRASHING) else ""

        found = await until(fatal, 30, "the next death")
        if found == "over":
            break
        deaths += 1
        assert deaths < 9, "nobody is blamed"
        engine.kill()
        conn.terminate()
        await asyncio.to_thread(own_server.restart, "immediate")
        engine.start()
    assert deaths >= 5
    assert "at least five engines died" in await runs.output(poison)
    for instance in [*good, late]:
        assert await runs.ended(instance) == "completed"
    assert await runs.effects() == ["0", "1", "2", "late"]
    await runs.conn.close()
