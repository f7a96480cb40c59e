"""A workflow as PostgreSQL stores it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pgflows.errors import SetupError
from pgflows.flow.describe import describe
from pgflows.flow.graph.lower import StepTimeout, lower
from pgflows.flow.graph.render import render as write
from pgflows.flow.graph.tree import Node
from pgflows.flow.program import Program
from pgflows.flow.typing.models import schemas


@dataclass(frozen=True)
class Rendered:
    """A workflow as PostgreSQL stores it: what `pgflows.define` takes.

    `graph` is a SQL expression of `df` functions, which writes `tree`; evaluating it gives the
    envelope.
    """

    name: str
    version: str
    graph: str
    tree: Node
    definition: dict[str, Any]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    checksum: str


def render(program: Program, *, base_url: str, step_timeout: StepTimeout) -> Rendered:
    """The program with its steps at `base_url`; an attempt of one may take `step_timeout(step)`."""
    if any(character in base_url for character in "{}$\\'\"") or not base_url.isprintable():
        raise SetupError(f"the base URL {base_url!r} must not contain braces, $, quotes or \\")
    tree = lower(program, base_url=base_url.rstrip("/"), step_timeout=step_timeout)
    graph = write(tree)
    workflow = program.workflow
    definition = describe(program, step_timeout=step_timeout)
    input_schema, output_schema = schemas(workflow)
    parts = [workflow.name, workflow.version, graph, definition, input_schema, output_schema]
    text = json.dumps(parts)
    return Rendered(
        name=workflow.name,
        version=workflow.version,
        graph=graph,
        tree=tree,
        definition=definition,
        input_schema=input_schema,
        output_schema=output_schema,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
    )
