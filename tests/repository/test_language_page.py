"""docs/python.md is the table of the compiler; UPDATE_GOLDEN=1 writes it."""

from __future__ import annotations

import os
from pathlib import Path

from pgflows.flow import operators

PAGE = Path(__file__).parents[2] / "docs/python.md"
HEAD = """\
# What a workflow function may say

A workflow is compiled from its source into a graph that PostgreSQL runs. This page is the table
that the compiler reads (`pgflows/flow/operators.py`): what is in it is translated exactly, anything
else is refused with its file, line and column, and with what to write instead. In the examples
`order` is the input and `paid` the result of a step. Steps, models and members of enums may be
names from outside of the function; other names from outside are refused.
"""


def table(*rows: tuple[str, ...]) -> str:
    head, *rest = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)
    columns = "| --- " * len(rows[0]) + "|"
    return "\n".join([head, columns, *rest, ""])


def code(text: str) -> str:
    return f"`{' '.join(text.split())}`"


def forms(rows: tuple[operators.Form, ...], what: str) -> str:
    return table((what, "example", "limits"), *((r.name, code(r.example), r.limits) for r in rows))


def refused(rows: tuple[operators.Refused, ...]) -> str:
    return table(("refused", "example"), *((r.word, code(r.example)) for r in rows))


def page() -> str:
    operator_rows = [
        (
            code(r.spelled),
            ", ".join(t.__name__ for t in r.takes),
            r.gives,
            code(r.example),
            r.limits,
        )
        for r in operators.OPERATORS
    ]
    parts = [
        HEAD,
        "## Statements\n",
        forms(operators.STATEMENTS, "statement"),
        "## Values\n",
        forms(operators.VALUES, "value"),
        "## Operators\n",
        table(("operator", "takes", "gives", "example", "limits"), *operator_rows),
        "## Refused\n",
        refused(operators.REFUSED_STATEMENTS),
        refused(operators.REFUSED_VALUES),
    ]
    return "\n".join(parts)


def test_the_page_of_what_is_accepted_is_the_table_of_the_compiler() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
