"""The table of the compiler: what it accepts is accepted, what it refuses is refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from pgflows.flow import operators
from pgflows.flow.graph.express import expression
from pgflows.flow.operators import Form, Operator, Refused
from pgflows.flow.program import Apply, At, Literal, Name, folded
from tests.unit.workflow_source import write

AT = At("file", 1, 0, "")
HEAD = """

class Anything(BaseModel):
    value: Any = None


@app.step
async def take(ctx: StepContext, input: Anything) -> Paid:
    return Paid(order_id="")


@app.workflow
async def w(ctx: WorkflowContext, order: Order) -> Paid:
    paid = await ctx.step(charge, order)
"""


def with_value(value: str) -> str:
    return f"{HEAD}    await ctx.step(take, Anything(value=«{value}))\n    return paid\n"


def with_statement(statement: str) -> str:
    lines = "".join(f"    {line}\n" for line in f"«{statement}".splitlines())
    return HEAD + lines + ("" if statement.startswith("return") else "    return paid\n")


def ids(row: Any) -> str:
    return str(row.example)


@pytest.mark.parametrize("row", operators.STATEMENTS, ids=ids)
def test_each_statement_of_the_table_is_accepted(row: Form, tmp_path: Path) -> None:
    assert write(tmp_path, with_statement(row.example)).compile()


@pytest.mark.parametrize("row", [*operators.VALUES, *operators.OPERATORS], ids=ids)
def test_each_value_of_the_table_is_accepted(row: Form | Operator, tmp_path: Path) -> None:
    assert write(tmp_path, with_value(row.example)).compile()


@pytest.mark.parametrize("row", operators.REFUSED_STATEMENTS, ids=ids)
def test_each_statement_that_the_table_refuses_is_refused(row: Refused, tmp_path: Path) -> None:
    assert row.syntax in map(type, ast.walk(ast.parse(row.example)))
    if row.syntax is ast.Nonlocal:
        pytest.skip("Python itself refuses it where no function is around it")
    written = write(tmp_path, with_statement(row.example))
    assert f"{row.word} cannot be translated" in written.refused().reason


@pytest.mark.parametrize("row", operators.REFUSED_VALUES, ids=ids)
def test_each_value_that_the_table_refuses_is_refused(row: Refused, tmp_path: Path) -> None:
    written = write(tmp_path, with_value(row.example))
    error = written.refused()
    assert f"{row.word} cannot be translated" in error.reason
    assert error.line == written.line


@pytest.mark.parametrize("row", operators.OPERATORS, ids=ids)
@pytest.mark.parametrize("value", ["order.amount", "True"])
def test_an_operator_is_refused_beyond_the_limits_of_its_row(
    row: Operator, value: str, tmp_path: Path
) -> None:
    written = write(tmp_path, with_value(row.spelled.replace("x", value)))
    error = written.refused()
    assert row.limits in error.reason
    assert (error.line, error.column) == (written.line, written.column)


def test_an_operator_with_sql_is_written_by_its_row() -> None:
    row = Operator("x + y", ast.Add, (int,), "int", int.__add__, "({0} + {1})", "", "1 + 2")
    sum_ = Apply(row, (Name("a", AT), Literal(2, AT)), AT)
    assert folded(sum_) is sum_
    assert expression(sum_) == "(v->'a' + '2'::jsonb)"
    assert folded(Apply(row, (Literal(1, AT), Literal(2, AT)), AT)) == Literal(3, AT)
