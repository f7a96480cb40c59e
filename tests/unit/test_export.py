"""The file for psql: nothing that a user wrote gets out of its comment or its quotes."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from pgflows import WorkflowApp, WorkflowContext
from pgflows.flow import compile_app, export_sql, render
from pgflows.flow.sample import sample


class Leaf(BaseModel):
    x: int = Field(ge=5)


class Tree(BaseModel):
    leaf: Leaf
    children: list[Tree] = []


class Kinds(BaseModel):
    text: str
    short: str = Field(max_length=2)
    long: str = Field(min_length=20)
    whole: int
    above: int = Field(gt=10)
    between: float = Field(gt=0, lt=1)
    below: int = Field(le=-3)
    many: Annotated[int, Field(multiple_of=5, gt=0)]
    money: Decimal
    flag: bool
    when: datetime
    uid: UUID
    word: Literal["a", "b"]
    maybe: int | None
    one: Leaf
    several: list[Leaf] = Field(min_length=2)
    pair: tuple[int, str]
    table: dict[str, int]
    nothing: None
    example: str = Field(examples=["shown"])
    left_out: int = 3


@pytest.mark.parametrize("model", [Leaf, Tree, Kinds])
def test_a_sample_fits_its_model(model: type[BaseModel]) -> None:
    value = sample(model)
    assert model.model_validate_json(json.dumps(value))
    assert "left_out" not in value
    assert value.get("example", "shown") == "shown"


class Nasty(BaseModel):
    """Ends here'); drop table x; --"""

    text: str = Field(examples=["it's \\ {sys_label} \n :'x' `id`"])


def test_docstrings_and_examples_stay_where_they_are() -> None:
    app = WorkflowApp()

    @app.workflow
    async def nasty(ctx: WorkflowContext, input: Nasty) -> Nasty:
        return Nasty(text="x")

    nasty.fn.__doc__ = "First\n\\! rm -rf /\r\\q\u2028select 1; */ ''\x00\x1b[0m"
    nasty.signature.description = nasty.fn.__doc__
    [flow] = compile_app(app.registry).values()
    text = export_sql(nasty, render(flow, base_url="http://a", step_timeout=app.step_timeout))
    lines = text.splitlines()
    start = lines.index("\\set ON_ERROR_STOP on")
    assert all(line.startswith("--") for line in lines[:start])
    assert [line.strip()[:4] for line in lines if line.strip().startswith("\\")] == [
        "\\set",
        "\\if ",
        "\\els",
        "\\set",
        "\\end",
    ]
    assert "\\set input '{\"text\": \"it''s \\\\\\\\ {sys_label} \\\\n :''x'' `id`\"}'" in text
    assert not any(c in text for c in "\x00\x1b\r\u2028")
