"""Values as SQL: jsonb expressions over `v`, the variables of a strand."""

from __future__ import annotations

from pgflows.flow.graph import quote
from pgflows.flow.program import Apply, Build, Expr, Field, List, Literal, Name

MOST_ARGUMENTS = 40  # pairs or items in one call; PostgreSQL takes 100 arguments


def expression(value: Expr) -> str:
    """A jsonb expression over `v`, the variables of the run."""
    match value:
        case Name(name=name):
            return f"v->{quote.text(name)}"
        case Field():
            return _field(value)
        case Literal(value=constant):
            return quote.json_literal(constant)
        case List(items=items):
            return _array([expression(item) for item in items])
        case Build(fields=fields):
            if all(isinstance(part, Literal) for _, part in fields):
                constants = {key: p.value for key, p in fields if isinstance(p, Literal)}
                return quote.json_literal(constants)
            return json_object([(key, expression(part)) for key, part in fields])
        case Apply(op=op, args=args):
            if op.sql is None:
                raise ValueError(f"{op.spelled} has no SQL")
            return op.sql.format(*map(expression, args))


def _field(value: Field) -> str:
    of = expression(value.of)
    found = [f"{of}->{quote.text(key)}" for key in value.keys]
    if value.default is not None:
        found.append(expression(value.default))
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


def json_object(fields: list[tuple[str, str]]) -> str:
    """A jsonb object of these keys and SQL expressions."""
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
