"""What the compiler accepts, and where it points for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflows.errors import CompileErrors
from pgflows.flow import compile_app
from pgflows.flow.program import INPUT, Build, Field, Literal, Name, Return, StepCall
from tests.unit.workflow_source import body, write


def test_a_straight_line_becomes_calls_and_a_return(tmp_path: Path) -> None:
    flow = write(
        tmp_path,
        body('''
            """A documented workflow."""
            paid = await ctx.step(charge, input)
            sent: Customer = await ctx.step(ship, paid)
            await ctx.step(ship, paid)
            return Paid(order_id=sent.address.city, count=3)
        '''),
    ).compile()
    assert [type(s) for s in flow.body] == [StepCall, StepCall, StepCall, Return]
    first, second, third, end = flow.body
    assert isinstance(first, StepCall)
    assert first.input == Name(INPUT, first.at)
    assert isinstance(second, StepCall)
    assert (second.key, second.var) == ("ship#1", "sent")
    assert isinstance(third, StepCall)
    assert (third.key, third.var) == ("ship#2", None)
    assert isinstance(end, Return)
    assert isinstance(end.value, Build)
    values = dict(end.value.fields)
    assert isinstance(values["order_id"], Field)
    assert isinstance(values["count"], Literal)
    assert values["count"].value == 3


def test_a_returned_step_is_a_call_and_its_result(tmp_path: Path) -> None:
    flow = write(tmp_path, body("return await ctx.step(charge, input)")).compile()
    call, end = flow.body
    assert isinstance(call, StepCall)
    assert isinstance(end, Return)
    assert isinstance(end.value, Name)
    assert end.value.name == call.var


def test_a_name_may_be_bound_again_and_then_means_the_new_result(tmp_path: Path) -> None:
    flow = write(
        tmp_path,
        body("""
            input = await ctx.step(charge, input)
            input = await ctx.step(ship, input)
            return await ctx.step(finish, input)
        """),
    ).compile()
    first, second, third, _ = flow.body
    assert isinstance(first, StepCall)
    assert isinstance(second, StepCall)
    assert isinstance(third, StepCall)
    assert first.input == Name(INPUT, first.at)
    assert second.input == Name("input", second.at)
    assert (third.step.name, third.var) == ("finish", "@r")


def test_parameters_may_have_other_names_and_a_subclass_is_a_result(tmp_path: Path) -> None:
    source = """

        @app.workflow
        async def w(c: WorkflowContext, o: Order, /) -> Paid:
            p = await c.step(charge, o)
            s = await c.step(ship, p)
            return await c.step(finish, s)
    """
    assert len(list(write(tmp_path, source).compile().calls())) == 3


def test_steps_are_found_in_closures_classes_and_modules(tmp_path: Path) -> None:
    source = """
        import types
        shop = types.ModuleType("shop")
        shop.charge = charge

        class Steps:
            ship = ship

        def make():
            last = finish

            @app.workflow
            async def w(ctx: WorkflowContext, input: Order) -> PaidMore:
                paid = await ctx.step(shop.charge, input)
                sent = await ctx.step(Steps.ship, paid)
                return await ctx.step(last, sent)

        make()
    """
    keys = [call.key for call in write(tmp_path, source).compile().calls()]
    assert keys == ["charge#1", "ship#1", "finish#1"]


def test_a_docstring_less_indented_than_the_code_does_not_move_anything(tmp_path: Path) -> None:
    source = '''
def make():
    @app.workflow
    async def w(ctx: WorkflowContext, input: Order) -> Paid:
        """Zürich
at column 0
"""
        zürich = await ctx.step(charge, input)
        return «zurich
make()
'''
    written = write(tmp_path, source)
    error = written.refused()
    assert (error.line, error.column) == (written.line, written.column)
    assert error.source == "        return zurich"


REFUSED = [
    # statements
    ("x = «1\nreturn await ctx.step(charge, input)", "this literal is not a step"),
    ("x = «input\nreturn await ctx.step(charge, x)", "a name is not a step"),
    ("«...\nreturn await ctx.step(charge, input)", "this literal is not a step"),
    ("«x: Paid\nreturn await ctx.step(charge, input)", "declaration without a value"),
    ("«a = b = await ctx.step(charge, input)\nreturn a", "one plain name"),
    ("«a, b = await ctx.step(charge, input)\nreturn a", "one plain name"),
    ("«input.amount = await ctx.step(charge, input)\nreturn input", "one plain name"),
    ("«ctx = await ctx.step(charge, input)\nreturn ctx", "must stay the workflow's context"),
    # the end
    ("«x = await ctx.step(charge, input)", "without `return`"),
    ('«"""only a docstring"""', "without `return`"),
    ("«return", "needs the workflow's result"),
    ("x = await ctx.step(charge, input)\nreturn x\n«return x", "never reached"),
    # calls
    ("«ctx.step(charge, input)\nreturn 1", "needs `await`"),
    ("x = «ctx.step(charge, input)\nreturn x", "needs `await`"),
    ("await «charge(ctx, input)\nreturn 1", "only `ctx.step(…)` can be awaited"),
    ("await «ctx.sleep(1)\nreturn 1", "only `ctx.step(…)` can be awaited"),
    ("await «ctx.step(charge)\nreturn 1", "takes a step and its input"),
    ("await «ctx.step(charge, input, 1)\nreturn 1", "takes a step and its input"),
    ("await «ctx.step(charge, input=input)\nreturn 1", "takes a step and its input"),
    ("await ctx.step(charge, «*input)\nreturn 1", "`*`"),
    ("await ctx.step(«plain_function, input)\nreturn 1", "`plain_function` is not a step"),
    ("await ctx.step(«nowhere, input)\nreturn 1", "`nowhere` is not defined"),
    ("await ctx.step(«foreign, input)\nreturn 1", "a step of another app"),
    ("await ctx.step(«'charge', input)\nreturn 1", "is not defined"),
    ("charge = await ctx.step(«charge, input)\nreturn charge", "a variable of this function"),
    # values
    ("return «paid\npaid = await ctx.step(charge, input)", "before it is assigned"),
    ("return «RATE", "comes from outside"),
    ("return «Paid.count", "comes from outside"),
    ("return «ctx", "is the context"),
    ("return «nowhere", "comes from outside"),
    ("await ctx.step(charge, «await ctx.step(charge, input))\nreturn 1", "assign its result first"),
    ("return Paid(order_id=«ctx.step(charge, input))", "assign its result first"),
    ("return Paid(order_id=«str(1))", "is not a pydantic model"),
    ("return Paid(order_id=«input.order_id.upper())", "a variable of this function"),
    ("return «plain_function(input)", "is not a pydantic model"),
    ("return «Nowhere(order_id='x')", "is not defined"),
    ("return Paid(«'x')", "takes keywords only"),
    ("return Paid(**«{'order_id': 'x'})", "`**`"),
    ("return Paid(order_id='x', note=«...)", "this literal"),
    ("return Paid(order_id='x', count=«1j)", "this literal"),
    ("return Paid(order_id='x', note={«1: 'a'})", "not a string literal"),
    ("return Paid(order_id='x', note={'a': «input})", "a computed value in a dict"),
]


@pytest.mark.parametrize(("statements", "message"), REFUSED, ids=[s for s, _ in REFUSED])
def test_anything_else_is_refused_with_its_place(
    tmp_path: Path, statements: str, message: str
) -> None:
    written = write(tmp_path, body(statements))
    error = written.refused()
    assert message in error.reason
    assert (error.line, error.column) == (written.line, written.column)
    assert error.file == str(tmp_path / "flow_under_test.py")
    assert error.source.strip() in written.module.__dict__["__source__"]
    assert error.allowed
    assert f"{error.file}:{error.line}:{error.column + 1}: workflow w:" in str(error)


def test_a_function_under_another_decorator_is_refused(tmp_path: Path) -> None:
    source = """
        import functools

        def twice(fn):
            @functools.wraps(fn)
            async def inner(ctx: WorkflowContext, input: Order) -> Paid:
                await fn(ctx, input)
                return await fn(ctx, input)
            return inner

        @app.workflow
        @twice
        async def w(ctx: WorkflowContext, input: Order) -> Paid:
            return await ctx.step(charge, input)
    """
    assert "its only decorator" in write(tmp_path, source).refused().allowed


def test_a_file_that_was_edited_after_the_import_is_refused(tmp_path: Path) -> None:
    written = write(tmp_path, body("return await ctx.step(charge, input)"))
    file = tmp_path / "flow_under_test.py"
    file.write_text(file.read_text().replace("ctx.step(charge, input)", "ctx.step(other, input)"))
    assert "no longer what was imported" in written.refused().reason


def test_a_function_without_a_source_is_refused(tmp_path: Path) -> None:
    written = write(tmp_path, body("return await ctx.step(charge, input)"))
    (tmp_path / "flow_under_test.py").unlink()
    assert "cannot be read" in written.refused().reason


def test_an_app_is_checked_as_a_whole(tmp_path: Path) -> None:
    source = """
        @app.workflow
        async def good(ctx: WorkflowContext, input: Order) -> Paid:
            return await ctx.step(charge, input)

        @app.workflow
        async def first(ctx: WorkflowContext, input: Order) -> Paid:
            return 1

        @app.workflow
        async def second(ctx: WorkflowContext, input: Order) -> 'Missing':
            return await ctx.step(charge, input)
    """
    app = write(tmp_path, source).module.app
    with pytest.raises(CompileErrors) as caught:
        compile_app(app)
    assert len(caught.value.errors) == 2
    assert "workflow first: " in str(caught.value)
    assert "names 'Missing', which is not defined" in str(caught.value)
