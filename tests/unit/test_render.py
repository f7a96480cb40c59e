"""The renderer beyond what the golden files show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from pgflows import RetryConfig, StepContext, WorkflowApp, WorkflowContext
from pgflows.errors import SetupError
from pgflows.flow import compile_app, render
from pgflows.flow.graph.express import expression
from pgflows.flow.program import At, Build, List, Literal, Name

AT = At("file", 1, 0, "")


class Order(BaseModel):
    order_id: str


def rendered(**options: Any) -> Any:
    app = WorkflowApp()

    @app.step(retry=options.get("retry"), timeout=options.get("timeout"))
    async def charge(ctx: StepContext, input: Order) -> Order:
        return input

    @app.workflow(step_defaults=options.get("step_defaults"))
    async def process(ctx: WorkflowContext, input: Order) -> Order:
        paid = await ctx.step(charge, input)
        return await ctx.step(charge, paid)

    [flow] = compile_app(app.registry).values()
    url = options.get("base_url", "http://app/")
    return render(flow, base_url=url, step_timeout=app.step_timeout)


def test_the_call_waits_longer_than_an_attempt_may_take() -> None:
    graph = rendered(timeout=2.5).graph
    assert graph.count("df.http('http://app/steps/charge', 'POST', '$e.body_1', ") == 2
    assert graph.count("::jsonb, 33)") == 2


def test_the_first_node_starts_from_seq_0_and_the_others_from_the_capture() -> None:
    graph = rendered().graph
    assert graph.count("''main'', 0)") == 1
    assert graph.count("''main'', $e.seq)") == 2


def test_the_workflows_policy_is_in_the_request_of_steps_without_their_own() -> None:
    policy = RetryConfig(max_retries=9)
    assert '"max_retries":9' in rendered(step_defaults=policy).graph
    own = RetryConfig(max_retries=1)
    assert "retry" not in rendered(step_defaults=policy, retry=own).graph
    assert "retry" not in rendered(retry=own).graph


def test_the_definition_shows_steps_policies_and_the_flow() -> None:
    definition = rendered(retry=RetryConfig(max_retries=1), timeout=4).definition
    assert json.loads(json.dumps(definition)) == definition
    assert [step["key"] for step in definition["steps"]] == ["charge#1", "charge#2"]
    assert definition["steps"][0]["retry"]["max_retries"] == 1
    assert definition["steps"][0]["timeout"] == 4
    assert definition["flow"] == [
        {
            "type": "step",
            "key": "charge#1",
            "step": "charge",
            "result": "paid",
            "input": {"type": "input"},
        },
        {
            "type": "step",
            "key": "charge#2",
            "step": "charge",
            "result": "@r",
            "input": {"type": "result", "name": "paid"},
        },
        {"type": "return", "value": {"type": "result", "name": "@r"}},
    ]


@pytest.mark.parametrize("url", ["http://{host}", "http://a$e", "http://a'b", "http://a\n"])
def test_a_base_url_that_would_be_substituted_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="must not contain"):
        rendered(base_url=url)


def test_a_model_of_many_fields_is_built_in_parts() -> None:
    model = create_model("Wide", **{f"f{n}": (int, 0) for n in range(90)})  # type: ignore[call-overload]
    fields = tuple((f"f{n}", Name("r", AT)) for n in range(90))
    sql = expression(Build(model, fields, AT))
    assert sql.count("jsonb_build_object(") == 3
    items = expression(List((*[Literal(1, AT)] * 90, Name("r", AT)), AT))
    assert items.count("jsonb_build_array(") == 3


def test_names_that_are_not_ascii_stay_names() -> None:
    assert expression(Name("größe", AT)) == "v->'größe'"
