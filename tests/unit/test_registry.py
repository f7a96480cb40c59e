"""Declaring steps and workflows: each form that works, each mistake with its file and line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from pgflows import PgflowsError, RetryConfig, StepContext, WorkflowApp, WorkflowContext
from pgflows.definitions import Step, Workflow, call_timeout
from pgflows.errors import DefinitionError, SetupError
from pgflows.loading import load_app

if TYPE_CHECKING:
    pass


class Order(BaseModel):
    order_id: str


class Receipt(BaseModel):
    number: str


def context() -> StepContext:
    import logging

    return StepContext(
        instance_id=UUID(int=1),
        df_id="0000000a",
        step_key="charge#1",
        attempt=1,
        idempotency_key="key",
        logger=logging.getLogger("test"),
        deadline=datetime.now(UTC),
    )


async def test_all_three_forms_of_the_decorator_register_and_stay_callable() -> None:
    app = WorkflowApp()

    @app.step
    async def bare(ctx: StepContext, input: Order) -> Receipt:
        return Receipt(number=input.order_id)

    @app.step()
    async def called(ctx: StepContext, input: Order) -> Receipt:
        return Receipt(number=input.order_id)

    @app.step(name="other", retry=RetryConfig(max_retries=0), timeout=2.5)
    def in_a_thread(ctx: StepContext, input: Order) -> Receipt:
        return Receipt(number=ctx.step_key)

    assert_type(bare, Step[Order, Receipt])
    assert_type(called, Step[Order, Receipt])
    assert_type(in_a_thread, Step[Order, Receipt])
    assert list(app.steps) == ["bare", "called", "other"]
    assert (await bare(context(), Order(order_id="1"))).number == "1"
    assert (await in_a_thread(context(), Order(order_id="1"))).number == "charge#1"
    assert (app.steps["other"].is_async, app.steps["other"].timeout) == (False, 2.5)
    assert (bare.input_model, bare.output_model) == (Order, Receipt)
    assert app.step_timeout(in_a_thread) == 2.5
    assert app.step_timeout(bare) == app.settings.step_timeout
    assert call_timeout(2.5) == 33


async def test_a_workflow_is_typed_and_says_that_it_is_not_run_by_calling_it() -> None:
    app = WorkflowApp()

    @app.step
    async def charge(ctx: StepContext, input: Order) -> Receipt:
        return Receipt(number=input.order_id)

    @app.workflow(name="orders", version="2.1", step_defaults=RetryConfig(max_retries=1))
    async def process(ctx: WorkflowContext, input: Order) -> Receipt:
        """What it does."""
        receipt = await ctx.step(charge, input)
        assert_type(receipt, Receipt)
        return receipt

    assert_type(process, Workflow[Order, Receipt])
    assert app.workflows == {"orders": process}
    assert (process.version, process.description) == ("2.1", "What it does.")
    assert process.retry_of(charge) == RetryConfig(max_retries=1)
    assert Path(process.file) == Path(__file__)
    with pytest.raises(PgflowsError, match="start it over HTTP"):
        await process(WorkflowContext(), Order(order_id="1"))


async def test_a_workflow_runs_on_a_context_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    app = WorkflowApp()

    @app.step
    async def charge(ctx: StepContext, input: Order) -> Receipt:
        return Receipt(number=input.order_id)

    @app.workflow
    async def process(ctx: WorkflowContext, input: Order) -> Receipt:
        return await ctx.step(charge, input)

    class Direct(WorkflowContext):
        async def step(self, step: Any, input: Any, /) -> Any:
            return await step(context(), input)

    assert (await process(Direct(), Order(order_id="7"))).number == "7"


def test_models_may_be_local_and_defined_later() -> None:
    app = WorkflowApp()

    class Local(BaseModel):
        x: int

    def inner() -> Step[Any, Any]:
        @app.step
        async def charge(ctx, input: Local) -> Later:  # type: ignore[no-untyped-def]
            return Later()

        class Later(BaseModel):
            pass

        assert charge.output_model is Later
        return charge

    charge = inner()
    assert charge.input_model is Local

    @app.step
    async def unresolved(ctx: StepContext, input: Nowhere) -> Local:  # type: ignore[name-defined]  # noqa: F821
        return Local(x=1)

    [error] = app.check_definitions()
    assert "the annotation of the input 'input' names 'Nowhere'" in error.reason
    assert (error.file, error.line) == (unresolved.file, unresolved.line)


ANSWER = Receipt(number="1")


def unannotated_input(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx, input) -> Receipt:  # type: ignore[no-untyped-def]
        return ANSWER


def unannotated_result(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx: StepContext, input: Order):  # type: ignore[no-untyped-def]
        return ANSWER


def dict_input(app: WorkflowApp) -> None:
    @app.step  # type: ignore[type-var]
    async def s(ctx: StepContext, input: dict[str, str]) -> Receipt:
        return ANSWER


def optional_result(app: WorkflowApp) -> None:
    @app.step  # type: ignore[type-var]
    async def s(ctx: StepContext, input: Order) -> Receipt | None:
        return ANSWER


def no_result(app: WorkflowApp) -> None:
    @app.step  # type: ignore[type-var]
    async def s(ctx: StepContext, input: Order) -> None:
        return None


def base_model(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx: StepContext, input: BaseModel) -> Receipt:
        return ANSWER


def one_parameter(app: WorkflowApp) -> None:
    @app.step  # type: ignore[arg-type]
    async def s(input: Order) -> Receipt:
        return ANSWER


def three_parameters(app: WorkflowApp) -> None:
    @app.step  # type: ignore[arg-type]
    async def s(ctx: StepContext, input: Order, more: Order) -> Receipt:
        return ANSWER


def keyword_only(app: WorkflowApp) -> None:
    @app.step  # type: ignore[arg-type]
    async def s(ctx: StepContext, *, input: Order) -> Receipt:
        return ANSWER


def starred(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx: StepContext, *input: Order) -> Receipt:
        return ANSWER


def with_a_default(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx: StepContext, input: Order = Order(order_id="1")) -> Receipt:  # noqa: B008
        return ANSWER


def generator(app: WorkflowApp) -> None:
    @app.step
    async def s(ctx: StepContext, input: Order) -> Receipt:  # type: ignore[misc]
        yield Receipt(number="1")


def not_async(app: WorkflowApp) -> None:
    @app.workflow  # type: ignore[arg-type]
    def w(ctx: WorkflowContext, input: Order) -> Receipt:
        return ANSWER


def bad_name(app: WorkflowApp) -> None:
    @app.step(name="no-dash")
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def long_name(app: WorkflowApp) -> None:
    @app.workflow(name="x" * 64)
    async def w(ctx: WorkflowContext, input: Order) -> Receipt:
        return ANSWER


def empty_name(app: WorkflowApp) -> None:
    @app.step(name="")
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def taken_name(app: WorkflowApp) -> None:
    @app.step(name="taken")
    async def first(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER

    @app.step(name="taken")
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def bad_timeout(app: WorkflowApp) -> None:
    @app.step(timeout=0)
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def endless_timeout(app: WorkflowApp) -> None:
    @app.step(timeout=float("inf"))
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def bad_retry(app: WorkflowApp) -> None:
    @app.step(retry=3)  # type: ignore[call-overload, untyped-decorator]
    async def s(ctx: StepContext, input: Order) -> Receipt:
        return ANSWER


def bad_version(app: WorkflowApp) -> None:
    @app.workflow(version=2)  # type: ignore[call-overload, untyped-decorator]
    async def w(ctx: WorkflowContext, input: Order) -> Receipt:
        return ANSWER


def a_class(app: WorkflowApp) -> None:
    app.step(Order)  # type: ignore[arg-type]


MISTAKES: list[tuple[Callable[[WorkflowApp], None], str]] = [
    (unannotated_input, "step s: the input 'input' needs an annotation: a pydantic model"),
    (unannotated_result, "step s: the result needs an annotation"),
    (dict_input, "the input 'input' must be a pydantic model, not dict"),
    (optional_result, "the result must be a pydantic model, not"),
    (no_result, "the result must be a pydantic model, not NoneType"),
    (base_model, "must be a pydantic model, not BaseModel"),
    (one_parameter, "takes 1 parameters instead of two; write it as `s(ctx, input: Model)"),
    (three_parameters, "takes 3 parameters instead of two"),
    (keyword_only, "is not a plain parameter"),
    (starred, "is not a plain parameter"),
    (with_a_default, "'input' must not have a default"),
    (generator, "is a generator"),
    (not_async, "workflow w: must be an `async def`"),
    (bad_name, "the name 'no-dash' must be 1 to 63 letters"),
    (long_name, "must be 1 to 63 letters"),
    (empty_name, "the name '' must be"),
    (taken_name, "the name 'taken' is taken by the step at"),
    (bad_timeout, "timeout must be in (0, 604800] seconds"),
    (endless_timeout, "timeout must be in (0, 604800] seconds"),
    (bad_retry, "retry must be a RetryConfig, not 3"),
    (bad_version, "version 2 must be a string"),
    (a_class, "a step is a function, not"),
]


@pytest.mark.parametrize(("declare", "message"), MISTAKES, ids=[d.__name__ for d, _ in MISTAKES])
def test_a_bad_declaration_is_refused_with_file_and_line(
    declare: Callable[[WorkflowApp], None], message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        declare(WorkflowApp())
    error = caught.value
    lines, first = inspect.getsourcelines(declare)
    assert message in error.reason
    assert error.file == __file__
    assert first < error.line < first + len(lines)
    assert str(error).startswith(f"{__file__}:{error.line}: ")


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"initial_delay_seconds": -1},
        {"max_delay_seconds": float("inf")},
        {"initial_delay_seconds": float("nan")},
        {"initial_delay_seconds": 120},
        {"backoff": "random"},
        {"retries": 3},
    ],
)
def test_a_bad_retry_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetryConfig(**options)


def test_delays_grow_as_the_policy_says_and_stop_at_the_longest() -> None:
    fast = RetryConfig(initial_delay_seconds=1, max_delay_seconds=5, jitter=False)
    assert [fast.delay(n) for n in (1, 2, 3, 4, 5000)] == [1, 2, 4, 5, 5]
    steady = RetryConfig(
        initial_delay_seconds=1, max_delay_seconds=5, jitter=False, backoff="linear"
    )
    assert [steady.delay(n) for n in (1, 2, 5, 6)] == [1, 2, 5, 5]
    spread = RetryConfig(initial_delay_seconds=2, max_delay_seconds=2)
    assert all(1 <= spread.delay(1) <= 2 for _ in range(50))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to write packages into, importable and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


MODELS = "from pydantic import BaseModel\nclass M(BaseModel): pass\n"


def test_an_app_is_loaded_with_all_modules_of_its_package(package: Path) -> None:
    module(package, "shop/__init__.py", "from pgflows import WorkflowApp\napp = WorkflowApp()\n")
    step = f"from shop import app\n{MODELS}@app.step\nasync def %s(ctx, input: M) -> M: ...\n"
    module(package, "shop/orders.py", step % "one")
    module(package, "shop/deep/__init__.py", "")
    module(package, "shop/deep/more.py", step % "two")
    module(package, "shop/__main__.py", "raise SystemExit")
    assert sorted(load_app("shop:app").steps) == ["one", "two"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("shop", "must look like module:attribute"),
        ("nowhere:app", "there is no module 'nowhere'"),
        ("shop.nowhere:app", "there is no module 'shop.nowhere'"),
        ("shop:missing", "has no WorkflowApp called 'missing'"),
        ("shop:number", "has no WorkflowApp called 'number'"),
        ("broken:app", "broken cannot be imported: No module named 'not_installed'"),
        ("invalid:app", "invalid cannot be imported: "),
        ("failing:app", "failing cannot be imported: ValueError: Invalid isoformat string: 'x' ("),
        ("failing:app", "failing.py, line 2)"),
    ],
)
def test_an_app_that_is_not_there_is_a_clear_error(package: Path, path: str, message: str) -> None:
    module(package, "shop/__init__.py", "number = 1\n")
    module(package, "broken.py", "import not_installed\n")
    module(package, "invalid.py", "def\n")
    module(package, "failing.py", "import datetime\ndatetime.date.fromisoformat('x')\n")
    with pytest.raises(SetupError) as caught:
        load_app(path)
    assert message in str(caught.value)


def test_a_bad_declaration_in_a_loaded_module_is_reported_as_such(package: Path) -> None:
    text = "from pgflows import WorkflowApp\napp = WorkflowApp()\n@app.step\nasync def s(x): ...\n"
    module(package, "shop/__init__.py", text)
    with pytest.raises(DefinitionError, match=r"shop/__init__\.py:3: step s: takes 1 parameters"):
        load_app("shop:app")
