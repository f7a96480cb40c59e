"""A program as data: what the API, the ledger and a dashboard show of a workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgflows.definitions import Step
from pgflows.flow.program import (
    INPUT,
    Apply,
    Build,
    Expr,
    Field,
    List,
    Literal,
    Name,
    Program,
    Statement,
    StepCall,
)


def describe(
    program: Program, *, step_timeout: Callable[[Step[Any, Any]], float]
) -> dict[str, Any]:
    """`steps`, each call with its policies, and `flow`, the tree of statements."""
    return {
        "steps": [
            {
                "key": call.key,
                "step": call.step.name,
                "retry": program.workflow.retry_of(call.step).model_dump(),
                "timeout": step_timeout(call.step),
            }
            for call in program.calls()
        ],
        "flow": [_statement(statement) for statement in program.body],
    }


def _statement(statement: Statement) -> dict[str, Any]:
    if isinstance(statement, StepCall):
        return {
            "type": "step",
            "key": statement.key,
            "step": statement.step.name,
            "result": statement.var,
            "input": _value(statement.input),
        }
    return {"type": "return", "value": _value(statement.value)}


def _value(value: Expr) -> dict[str, Any]:
    match value:
        case Name(name=name) if name == INPUT:
            return {"type": "input"}
        case Name(name=name):
            return {"type": "result", "name": name}
        case Field(of=of, name=name):
            return {"type": "field", "of": _value(of), "name": name}
        case Literal(value=constant):
            return {"type": "literal", "value": constant}
        case List(items=items):
            return {"type": "list", "items": [_value(item) for item in items]}
        case Build(model=model, fields=fields):
            return {
                "type": "model",
                "model": model.__name__,
                "fields": {key: _value(part) for key, part in fields},
            }
        case Apply(op=op, args=args):
            return {"type": "operator", "op": op.spelled, "args": [_value(arg) for arg in args]}
