"""What `pgflows dev` prints to try."""

from __future__ import annotations

import json
import shlex

from pydantic import BaseModel, Field

from pgflows.app import WorkflowApp
from pgflows.cli.serving import _to_try
from pgflows.config import Settings
from pgflows.context import StepContext, WorkflowContext


class Greeting(BaseModel):
    name: str = Field(examples=["O'Neill $HOME"])
    times: int = Field(ge=3)


def test_the_input_to_try_fits_the_workflow_and_the_shell() -> None:
    app = WorkflowApp()

    @app.step
    async def greet(ctx: StepContext, input: Greeting) -> Greeting:
        return input

    @app.workflow
    async def hello(ctx: WorkflowContext, input: Greeting) -> Greeting:
        return await ctx.step(greet, input)

    start, listed, exported = _to_try(Settings(port=8123, api_keys=("k",)), app)[1:]
    words = shlex.split(start)
    given = json.loads(words[words.index("-d") + 1])["input"]
    assert Greeting.model_validate(given) == Greeting(name="O'Neill $HOME", times=3)
    assert "http://127.0.0.1:8123/workflows/hello/start?wait=10" in words
    assert "http://127.0.0.1:8123/export/hello.sql" in shlex.split(exported)
    for line in (start, listed, exported):
        assert "Authorization: Bearer KEY" in shlex.split(line)


def test_without_a_workflow_it_says_where_one_belongs() -> None:
    (line,) = _to_try(Settings(app="mine:app"), WorkflowApp())
    assert "package mine" in line
