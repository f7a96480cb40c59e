"""Turns a program into a graph.

A step is two nodes: a compiled node, captured as `e`, which takes in the outcome before it and
opens the ledger row of the step; and the HTTP call, which that row signs. One more compiled node
stores the result of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgflows import headers
from pgflows.compiled import NodeText
from pgflows.definitions import Step, call_timeout
from pgflows.flow.graph import quote
from pgflows.flow.graph.express import expression, json_object
from pgflows.flow.graph.tree import Http, Node, Sql, sequence
from pgflows.flow.program import Program, StepCall

FIRST_STRAND = "main"
FIRST_SEQ = "0"
LATER_SEQ = "$e.seq"
CAPTURE = "e"
HEADERS = {
    "content-type": "application/json",
    headers.INSTANCE: "{sys_instance_id}",
    headers.STEP_KEY: "$e.key_1",
    headers.SEQ: "$e.seq",
    headers.SIGNATURE: "$e.signature_1",
}

StepTimeout = Callable[[Step[Any, Any]], float]


def lower(program: Program, *, base_url: str, step_timeout: StepTimeout) -> Node:
    """The graph of the program, with its steps at `base_url`."""
    nodes: list[Node] = []
    seq = FIRST_SEQ
    for statement in program.body:
        if isinstance(statement, StepCall):
            defaults = program.workflow.step_defaults if statement.step.retry is None else None
            asked = _request(statement, defaults.model_dump() if defaults else None)
            nodes.append(Sql(NodeText(FIRST_STRAND, seq, steps=(asked,)).text(), CAPTURE))
            timeout = call_timeout(step_timeout(statement.step))
            url = f"{base_url}/steps/{statement.step.name}"
            nodes.append(Http(url, "POST", "$e.body_1", HEADERS, timeout))
        else:
            output = expression(statement.value)
            nodes.append(Sql(NodeText(FIRST_STRAND, seq, output=output).text()))
        seq = LATER_SEQ
    return sequence(nodes)


def _request(call: StepCall, retry: dict[str, Any] | None) -> str:
    """What `pgflows.put` is told of a step to call."""
    fields = [
        ("key", quote.text(call.key)),
        ("step", quote.text(call.step.name)),
        ("var", "null" if call.var is None else quote.text(call.var)),
        ("input", expression(call.input)),
        ("try", "false"),
    ]
    if retry is not None:
        fields.append(("retry", quote.json_literal(retry)))
    return json_object(fields)
