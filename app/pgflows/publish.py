"""Puts the workflows of an app into the database: compiles, renders, defines what changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pgflows.app import WorkflowApp
from pgflows.database.connections import SERVICE, Connection, connect
from pgflows.flow import Rendered, compile_app, render

DEFINE_LOCK = 0x7067666C6F7764  # key of the advisory lock under which services define

logger = logging.getLogger("pgflows.publish")


def render_app(app: WorkflowApp, base_url: str) -> dict[str, Rendered]:
    """Every workflow of the app as SQL that calls its steps at `base_url`."""
    return {
        name: render(program, base_url=base_url, step_timeout=app.step_timeout)
        for name, program in compile_app(app.registry).items()
    }


async def define_changed(dsn: str, workflows: Iterable[Rendered]) -> None:
    """Register the workflows whose graph or schemas are not what the database has.

    Services that start at the same time take turns, however long the others need.
    """
    connection = await connect(dsn, SERVICE)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", DEFINE_LOCK)
            for workflow in workflows:
                await _define_if_changed(connection, workflow)
    finally:
        await connection.close()


async def _define_if_changed(connection: Connection, workflow: Rendered) -> None:
    known = await connection.fetchval(
        "select pgflows.workflow_checksum($1, $2)", workflow.name, workflow.version
    )
    if known == workflow.checksum:
        return
    envelope = await connection.fetchval(f"select {workflow.graph}")
    await connection.execute(
        "select pgflows.define($1, $2, $3, $4, $5, $6, $7)",
        workflow.name,
        workflow.version,
        envelope,
        workflow.definition,
        workflow.input_schema,
        workflow.output_schema,
        workflow.checksum,
    )
    logger.info("defined workflow %s, version %s", workflow.name, workflow.version)
