"""What the routes of one deployment share, and how it is put together and taken apart.

`open_service` checks the database, compiles the workflows and defines those that changed, opens
the ledger and the runner and, if asked, an engine in this process. The routes find it on the
application's state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from pydantic import ValidationError

from pgflows import figures
from pgflows.app import WorkflowApp
from pgflows.config import Settings
from pgflows.database.access import Access, open_access
from pgflows.database.migrations import check_schema
from pgflows.database.orchestrator import needs_engine
from pgflows.database.pooler import check_pooler
from pgflows.engine import Engine, open_engine
from pgflows.errors import InvalidInput, ServiceUnavailable, SetupError, WorkflowNotFound
from pgflows.flow import Rendered, export_sql
from pgflows.http.keys import ApiKeys
from pgflows.http.metrics import Metrics
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.signing import Signatures
from pgflows.maintenance import open_maintenance
from pgflows.messages import Stats
from pgflows.publish import define_changed, render_app
from pgflows.runner.runner import Runner


@dataclass(frozen=True)
class Service:
    """An open deployment: everything that a route may need."""

    app: WorkflowApp
    settings: Settings
    base_url: str
    access: Access
    rendered: Mapping[str, Rendered]
    signatures: Signatures
    runner: Runner
    api_keys: ApiKeys
    engine: Engine | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.metrics.watch(self.runner.stats)

    def check_input(self, workflow: str, given: object) -> None:
        """The whole of the input model, where this service has it; SQL sees only its top level."""
        known = self.app.workflows.get(workflow)
        if known is None:
            return
        try:
            known.input_model.model_validate_json(json.dumps(given))
        except ValidationError as e:
            first = e.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or None
            raise InvalidInput(
                f"the input does not fit workflow {workflow}: {field or 'input'}: {first['msg']}",
                workflow=workflow,
                field=field,
                expected=first["msg"],
            ) from e

    def export(self, workflow: str) -> str:
        """The SQL of a workflow that this deployment serves."""
        if workflow not in self.rendered:
            raise WorkflowNotFound(f"there is no workflow {workflow}", workflow=workflow)
        return export_sql(self.app.workflows[workflow], self.rendered[workflow])

    async def stats(self) -> Stats:
        """Figures of the database, of the connections and of what runs in this process."""
        engine = self.engine.stats() if self.engine else None
        here = {"engine_here": engine, "steps_here": self.runner.stats()}
        return (await figures.stats(self.access)).model_copy(update=here)


def get_service(request: Request) -> Service:
    """The open deployment behind a request."""
    service: Service | None = getattr(request.app.state, "pgflows", None)
    if service is None:
        raise ServiceUnavailable("pgflows is not open: enter pgflows_lifespan in the lifespan")
    return service


DepService = Annotated[Service, Depends(get_service)]


@asynccontextmanager
async def open_service(
    app: WorkflowApp,
    settings: Settings,
    *,
    dsn: str | None = None,
    prefix: str = "",
    with_engine: bool = False,
) -> AsyncIterator[Service]:
    """Everything open and the workflows defined; closed in the reverse order."""
    if not (dsn := dsn or settings.dsn):
        raise SetupError("no database is named: set PGFLOWS_DSN")
    base_url = settings.base_url or settings.step_base_url + prefix
    rendered = render_app(app, base_url)
    await check_pooler(dsn)
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(open_access(dsn, settings.pool_size))
        async with access.reading() as connection:
            await check_schema(connection)
            engine_needed = with_engine and await needs_engine(connection)
        await define_changed(dsn, rendered.values())
        ledger = await stack.enter_async_context(Ledger.open(dsn, base_url))
        runner = await stack.enter_async_context(Runner(app, ledger, settings))
        await stack.enter_async_context(open_maintenance(settings, dsn=dsn))
        engine = None
        if engine_needed:
            engine = await stack.enter_async_context(open_engine(settings, dsn=dsn))
            await stack.enter_async_context(_running(engine))
        yield Service(
            app,
            settings,
            base_url,
            access,
            rendered,
            Signatures(ledger.read_keys),
            runner,
            ApiKeys(settings.api_keys),
            engine,
        )


@asynccontextmanager
async def _running(engine: Engine) -> AsyncIterator[None]:
    task = asyncio.create_task(engine.serve(), name="pgflows engine")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
