"""The renderer: writes a flow as the `df` expression that PostgreSQL runs.

Each step is two nodes: one SQL node that takes in the outcome before it and opens the ledger row of
the next step, captured as `e`; and the HTTP call that this row signs. One more SQL node stores the
result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgflows.definitions import Step, call_timeout
from pgflows.errors import SetupError
from pgflows.flow import quote
from pgflows.flow.describe import describe
from pgflows.flow.models import schemas
from pgflows.flow.nodes import (
    Attr,
    Construct,
    Expr,
    Flow,
    Input,
    Items,
    Literal,
    Return,
    StepCall,
    Var,
)

MARK = "/*pgflows*/"
STRAND = "'{sys_instance_id}', 'main'"
CAPTURED = (
    "r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1"
)
HEADERS = {
    "content-type": "application/json",
    "X-DF-Instance-ID": "{sys_instance_id}",
    "X-Pgflows-Step-Key": "$e.key_1",
    "X-Pgflows-Seq": "$e.seq",
    "X-Pgflows-Signature": "$e.signature_1",
}
MOST_ARGUMENTS = 40  # PostgreSQL takes 100 in a call; a pair is two

StepTimeout = Callable[[Step[Any, Any]], float]


@dataclass(frozen=True)
class Rendered:
    """A flow as PostgreSQL stores it: what `pgflows.define` takes.

    `graph` is a SQL expression of `df` functions; evaluating it gives the envelope. `leaves` are
    its nodes in order, each with the step that it belongs to.
    """

    name: str
    version: str
    graph: str
    leaves: tuple[tuple[str, str], ...]
    definition: dict[str, Any]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    checksum: str


def render(flow: Flow, *, base_url: str, step_timeout: StepTimeout) -> Rendered:
    """The flow with its steps at `base_url`; `step_timeout` says how long an attempt may take."""
    if any(character in base_url for character in "{}$\\'\"") or not base_url.isprintable():
        raise SetupError(f"the base URL {base_url!r} must not contain braces, $, quotes or \\")
    leaves = _leaves(flow, base_url.rstrip("/"), step_timeout)
    graph = _balanced([sql for _, sql in leaves])
    workflow = flow.workflow
    definition = describe(flow, step_timeout=step_timeout)
    input_schema, output_schema = schemas(workflow)
    parts = [workflow.name, workflow.version, graph, definition, input_schema, output_schema]
    text = json.dumps(parts)
    return Rendered(
        name=workflow.name,
        version=workflow.version,
        graph=graph,
        leaves=tuple(leaves),
        definition=definition,
        input_schema=input_schema,
        output_schema=output_schema,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
    )


def _leaves(flow: Flow, base_url: str, step_timeout: StepTimeout) -> list[tuple[str, str]]:
    leaves = []
    seq = "0"
    for statement in flow.body:
        if isinstance(statement, StepCall):
            retry = flow.workflow.step_defaults if statement.step.retry is None else None
            request = _request(statement, seq, retry.model_dump() if retry else None)
            leaves.append((statement.key, f"df.as({_sql(request)}, 'e')"))
            timeout = call_timeout(step_timeout(statement.step))
            leaves.append((statement.key, _http(base_url, statement.step.name, timeout)))
        elif isinstance(statement, Return):
            leaves.append(("return", _sql(_finish(statement, seq))))
        seq = "$e.seq"
    return leaves


def _sql(query: str) -> str:
    return f"df.sql({quote.node_text(query)})"


def _take(seq: str) -> str:
    return f"{MARK} with s0 as materialized (select pgflows.take({STRAND}, {seq}) v) "


def _request(call: StepCall, seq: str, retry: dict[str, Any] | None) -> str:
    fields = [
        ("key", quote.text(call.key)),
        ("step", quote.text(call.step.name)),
        ("var", "null" if call.var is None else quote.text(call.var)),
        ("input", expression(call.input)),
        ("try", "false"),
    ]
    if retry is not None:
        fields.append(("retry", quote.json_literal(retry)))
    steps = f"jsonb_build_array({_object(fields)})"
    put = f"pgflows.put({STRAND}, {seq}, s0.v, true, {steps})"
    return f"{_take(seq)}select {CAPTURED} from s0, {put} r"  # noqa: S608 - quoted above


def _finish(end: Return, seq: str) -> str:
    finish = f"pgflows.finish({STRAND}, {seq}, {expression(end.value)})"
    return f"{_take(seq)}select {finish} as output from s0"  # noqa: S608 - quoted above


def _http(base_url: str, step: str, timeout: int) -> str:
    headers = json.dumps(HEADERS, separators=(",", ":"))
    return (
        f"df.http({quote.node_text(f'{base_url}/steps/{step}')}, 'POST', '$e.body_1', "
        f"{quote.node_text(headers)}::jsonb, {timeout})"
    )


def expression(value: Expr) -> str:
    """A jsonb expression over `v`, the variables of the run."""
    match value:
        case Input():
            return "v->'@in'"
        case Var(name=name):
            return f"v->{quote.text(name)}"
        case Attr():
            return _attribute(value)
        case Literal(value=constant):
            return quote.json_literal(constant)
        case Items(items=items):
            return _array([expression(item) for item in items])
        case Construct(fields=fields):
            if all(isinstance(part, Literal) for _, part in fields):
                constants = {key: p.value for key, p in fields if isinstance(p, Literal)}
                return quote.json_literal(constants)
            return _object([(key, expression(part)) for key, part in fields])


def _attribute(value: Attr) -> str:
    of = expression(value.of)
    found = [f"{of}->{quote.text(key)}" for key in value.keys]
    if value.default is not None:
        found.append(expression(value.default))
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


def _object(fields: list[tuple[str, str]]) -> str:
    chunks = [
        ", ".join(f"{quote.text(key)}, {sql}" for key, sql in fields[at : at + MOST_ARGUMENTS])
        for at in range(0, max(len(fields), 1), MOST_ARGUMENTS)
    ]
    built = [f"jsonb_build_object({chunk})" for chunk in chunks]
    return built[0] if len(built) == 1 else f"({' || '.join(built)})"


def _array(items: list[str]) -> str:
    chunks = [items[at : at + MOST_ARGUMENTS] for at in range(0, len(items), MOST_ARGUMENTS)]
    built = [f"jsonb_build_array({', '.join(chunk)})" for chunk in chunks]
    return built[0] if len(built) == 1 else f"({' || '.join(built)})"


def _balanced(nodes: list[str]) -> str:
    """A sequence as a tree of least depth."""
    if len(nodes) == 1:
        return nodes[0]
    half = (len(nodes) + 1) // 2
    return f"df.seq({_balanced(nodes[:half])}, {_balanced(nodes[half:])})"
