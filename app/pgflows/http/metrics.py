"""What Prometheus scrapes: what this process measured, and the figures of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as generate

from pgflows import figures
from pgflows.database.access import Access
from pgflows.database.faults import is_away
from pgflows.messages import InstanceCount, Stats, StepStats

MEDIA_TYPE = CONTENT_TYPE_LATEST

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Ended:
    """The counts of what ended. They take a while among millions, so they are good for twenty
    times as long as that: scrapes cost the database a twentieth of a core at most.
    """

    def __init__(self) -> None:
        self._counts: list[InstanceCount] = []
        self._good_until = 0.0
        self._turn = asyncio.Lock()

    async def read(self, access: Access) -> list[InstanceCount]:
        async with self._turn:
            began = time.monotonic()
            if began >= self._good_until:
                self._counts = await figures.ended_counts(access)
                ended = time.monotonic()
                self._good_until = ended + 20 * (ended - began)
            return self._counts


class Metrics:
    """The figures of one application, in a registry of their own: several may live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.step_seconds = Histogram(
            "pgflows_step_seconds",
            "How long a push of a step took, retries inside the call included",
            ["step", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._refused = Counter(
            "pgflows_pushes_refused", "Pushes whose signature was refused", registry=self.registry
        )
        self._up = self._gauge("pgflows_database_up", "Whether the database answered this scrape")
        self._instances = self._gauge(
            "pgflows_instances",
            "Instances that are kept; many that ended are counted now and then only",
            "workflow",
            "status",
        )
        self._ended = Ended()
        self._engines = self._gauge("pgflows_engines_live", "Engines with a sign of life")
        self._lag = self._gauge(
            "pgflows_engine_lag_seconds", "Age of the oldest instance that waits for an engine"
        )
        self._waiting = self._gauge(
            "pgflows_steps_waiting", "Steps that are called in vain: no service takes them"
        )
        self._depth = self._gauge("pgflows_queue_depth", "Messages in a pgmq queue", "queue")
        self._running = self._gauge("pgflows_steps_running", "Steps that run in this process")
        self._left_behind = self._gauge(
            "pgflows_steps_left_behind",
            "Step functions that go on past their time limit and cannot be stopped",
        )
        self._pool = self._gauge("pgflows_pool_connections", "Database connections", "state")

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)

    def watch(self, steps: Callable[[], StepStats]) -> None:
        """Take the figures of the runner at each scrape."""
        self._running.set_function(lambda: steps().running)
        self._left_behind.set_function(lambda: steps().left_behind)

    def push_refused(self) -> None:
        """Count a push without a good signature."""
        self._refused.inc()

    async def render(self, access: Access) -> bytes:
        """The text of one scrape; without the database, what this process knows by itself."""
        try:
            stats = await figures.stats(access, totals=False)
            ended = await self._ended.read(access)
        except Exception as e:
            if not is_away(e):
                raise
            stats, ended = None, []
        self._show(stats, ended)
        self._pool.labels("idle").set(access.idle)
        self._pool.labels("busy").set(access.size - access.idle)
        return generate(self.registry)

    def _show(self, stats: Stats | None, ended: list[InstanceCount]) -> None:
        for gauge in (self._instances, self._depth):
            gauge.clear()
        self._up.set(stats is not None)
        if stats is None:
            return
        for count in [*stats.instances, *ended]:
            self._instances.labels(count.workflow, count.status).set(count.count)
        for queue in stats.queues:
            self._depth.labels(queue.queue).set(queue.depth)
        self._engines.set(stats.engine.live)
        self._lag.set(stats.engine.lag_seconds)
        self._waiting.set(stats.steps_waiting)
