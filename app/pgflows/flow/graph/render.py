"""Writes a graph as a SQL expression of `df` functions; evaluating that gives the envelope."""

from __future__ import annotations

import json

from pgflows.flow.graph import quote
from pgflows.flow.graph.tree import Http, Node, Sql, Then


def render(node: Node, *, indent: str | None = None) -> str:
    """The expression in one line, or with a node a line where an indent is given."""
    match node:
        case Then(first=first, second=second):
            if indent is None:
                return f"df.seq({render(first)}, {render(second)})"
            inner = f"{indent}  "
            return (
                f"df.seq(\n{inner}{render(first, indent=inner)},\n"
                f"{inner}{render(second, indent=inner)}\n{indent})"
            )
        case Sql(query=query, result_name=name):
            sql = f"df.sql({quote.node_text(query)})"
            return sql if name is None else f"df.as({sql}, {quote.node_text(name)})"
        case Http():
            return _http(node)


def _http(node: Http) -> str:
    headers = json.dumps(dict(node.headers), separators=(",", ":"))
    parts = [quote.node_text(part) for part in (node.url, node.method, node.body, headers)]
    return f"df.http({', '.join(parts)}::jsonb, {node.timeout})"
