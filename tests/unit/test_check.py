"""Types: what fits where, what is filled in, and what SQL could not do exactly and is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgflows.errors import DefinitionError
from pgflows.flow.program import Build, Expr, Field, List, Literal, Return
from tests.unit.workflow_source import body, write

MODELS = """

class Typed(BaseModel):
    i: int = 0
    f: float = 0.0
    s: str = ""
    b: bool = False
    d: Decimal = Decimal("1.50")
    when: datetime | None = None
    day: date = date(2024, 1, 31)
    uid: UUID | None = None
    colour: Colour = Colour.RED
    word: Literal["a", "b"] = "a"
    mixed: int | str = 0
    late: str | datetime = ""
    items: list[int] = []
    floats: list[float] = []
    names: dict[str, int] = {}
    any: Any = None
    maybe: int | None = None
    small: int = Field(0, ge=0, le=9)
    text: str = Field("", min_length=0, max_length=5)
    home: Address = Address(city="Ulm")
    homes: list[Address] = []
    size: Size = Size.S


@app.step
async def typed(ctx: StepContext, input: Typed) -> Typed:
    return input


class Fancy(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def upper(cls, value: str) -> str:
        return value.upper()


class Computed(BaseModel):
    net: int

    @computed_field
    @property
    def gross(self) -> int:
        return self.net * 2


class Hidden(BaseModel):
    secret: str = Field("s", exclude=True)
    password: SecretStr = SecretStr("p")
    written: date = date(2024, 1, 31)

    @field_serializer("written")
    def write(self, value: date) -> str:
        return value.strftime("%d.%m.%Y")

    def method(self) -> str:
        return ""


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    order_id: str = Field(alias="orderId")
    note: str = Field("none", alias="theNote")


class TwoNames(BaseModel):
    city: str = Field(validation_alias="in", serialization_alias="out")


class Fresh(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    tags: list[str] = Field(default_factory=list)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class Stricter(Strict):
    more: str = ""


class Limited(BaseModel):
    count: int = Field(ge=0)


class Shouting(BaseModel):
    name: Annotated[str, AfterValidator(str.upper)]
"""


def steps_for(*models: str) -> str:
    """A step `make_x` that gives each model and a step `take_x` that takes it."""
    return "".join(
        f"""

@app.step
async def make_{model.lower()}(ctx: StepContext, input: Order) -> {model}: ...

@app.step
async def take_{model.lower()}(ctx: StepContext, input: {model}) -> Paid: ...
"""
        for model in models
    )


EXTRA = MODELS + steps_for(
    "Fancy", "Computed", "Hidden", "Aliased", "TwoNames", "Fresh", "Strict", "Stricter", "Limited"
)


def value_of(folder: Path, expression: str, *, result: str = "Typed", input: str = "Typed") -> Expr:
    flow = write(folder, EXTRA + body(f"return {expression}", result=result, input=input)).compile()
    end = flow.body[-1]
    assert isinstance(end, Return)
    return end.value


def plain(value: Expr) -> Any:
    """A checked value without places: constants as they are, fields as paths."""
    match value:
        case Literal(value=constant):
            return constant
        case Build(fields=fields):
            return {key: plain(part) for key, part in fields}
        case List(items=items):
            return [plain(item) for item in items]
        case Field(of=of, keys=keys):
            return (*([] if not isinstance(of, Field) else plain(of)), "/".join(keys))
    return type(value).__name__


LITERALS = [
    ("i=5", "i", 5),
    ("i=-5", "i", -5),
    ("i=10**0 if False else 1", None, "a conditional expression"),
    ("i=True", None, "valid integer"),
    ("i='5'", None, "valid integer"),
    ("i=5.0", None, "valid integer"),
    ("f=5", "f", 5.0),
    ("f=0.1", "f", 0.1),
    ("f=-1e300", "f", -1e300),
    ("f=1e999", None, "no infinity"),
    ("f=-0.0", None, "no negative zero"),
    ("s='it''s'", "s", "its"),
    ("s=1", None, "valid string"),
    ("s=None", None, "valid string"),
    ("s='a\\x00b'", None, "U+0000"),
    ("s='\\ud800'", None, "surrogate"),
    ("b=True", "b", True),
    ("b=1", None, "valid boolean"),
    ("d='2.50'", "d", "2.50"),
    ("d='x'", None, "decimal"),
    ("when='2024-01-31T12:00:00Z'", "when", "2024-01-31T12:00:00Z"),
    ("when=None", "when", None),
    ("when='soon'", None, "datetime"),
    ("day='2024-02-01'", "day", "2024-02-01"),
    ("uid='00000000-0000-4000-8000-000000000000'", "uid", "00000000-0000-4000-8000-000000000000"),
    ("colour=Colour.BLUE", "colour", "blue"),
    ("colour='blue'", "colour", "blue"),
    ("colour='green'", None, "'red' or 'blue'"),
    ("i=Colour.RED", None, "valid integer"),
    ("any=Colour.RED", None, "would arrive as 'red'"),
    ("any={'a': [1, None, 'x']}", "any", {"a": [1, None, "x"]}),
    ("word='b'", "word", "b"),
    ("word='c'", None, "'a' or 'b'"),
    ("mixed='5'", "mixed", "5"),
    ("mixed=5", "mixed", 5),
    ("items=[1, 2]", "items", [1, 2]),
    ("items=['a']", None, "0: "),
    ("items=[]", "items", []),
    ("names={'a': 1}", "names", {"a": 1}),
    ("names={'a': 'b'}", None, "a: "),
    ("maybe=None", "maybe", None),
    ("small=10", None, "less than or equal to 9"),
    ("text='123456'", None, "at most 5"),
]


@pytest.mark.parametrize(("given", "field", "expected"), LITERALS, ids=[a for a, _, _ in LITERALS])
def test_a_literal_fits_its_field_or_is_refused(
    tmp_path: Path, given: str, field: str | None, expected: Any
) -> None:
    written = write(tmp_path, EXTRA + body(f"return Typed({given})", result="Typed"))
    if field is None:
        assert str(expected) in written.refused().reason
        return
    end = written.compile().body[-1]
    assert isinstance(end, Return)
    found = plain(end.value)[field]
    assert (found, type(found)) == (expected, type(expected))


PATHS = [
    ("i=input.i", "i"),
    ("f=input.i", "f"),
    ("f=input.f", "f"),
    ("i=input.f", "Typed.i is int, not float"),
    ("i=input.b", "Typed.i is int, not bool"),
    ("d=input.i", "Typed.d is Decimal, not int"),
    ("s=input.day", "Typed.s is str, not date"),
    ("s=input.word", "s"),
    ("word=input.s", "not str"),
    ("s=input.colour", "not Colour"),
    ("i=input.size", "not Size"),
    ("mixed=input.i", "mixed"),
    ("mixed=input.s", "mixed"),
    ("i=input.mixed", "not int | str"),
    ("late=input.when", "not datetime | None"),
    ("any=input.when", "any"),
    ("i=input.any", "not Any"),
    ("maybe=input.i", "maybe"),
    ("i=input.maybe", "not int | None"),
    ("items=input.items", "items"),
    ("floats=input.items", "floats"),
    ("items=input.floats", "not list[float]"),
    ("items=[input.i, 2]", "items"),
    ("items=[input.s]", "an item of Typed.items is int, not str"),
    ("s=[input.s]", "not list"),
    ("names=input.names", "names"),
    ("home=input.home", "home"),
    ("s=input.home.city", "s"),
    ("small=input.small", "small"),
    ("small=input.i", "Typed.small is limited"),
    ("i=input.small", "i"),
    ("home=Address(city=input.s)", "home"),
    ("homes=[Address(city='a'), input.home]", "homes"),
    ("home=Paid(order_id='x')", "not Paid"),
    ("s=input.nothing", "`.nothing` is not a field of Typed"),
    ("s=input.s.upper", "`.upper` of str"),
    ("s=input.when.year", "may be None"),
    ("s=input.homes.city", "`.city` of list[Address]"),
    ("s=input.model_fields", "is not a field of Typed"),
]


@pytest.mark.parametrize(("given", "expected"), PATHS, ids=[given for given, _ in PATHS])
def test_a_field_fits_another_only_for_certain(tmp_path: Path, given: str, expected: str) -> None:
    source = EXTRA + body(f"return Typed({given})", result="Typed", input="Typed")
    written = write(tmp_path, source)
    if expected.isidentifier():
        assert written.compile()
    else:
        assert expected in written.refused().reason


def test_the_defaults_of_the_input_stand_in_for_what_the_caller_left_out(tmp_path: Path) -> None:
    value = value_of(
        tmp_path, "Paid(order_id=input.order_id, note=input.home.zip)", result="Paid", input="Order"
    )
    assert isinstance(value, Build)
    note = dict(value.fields)["note"]
    assert isinstance(note, Field)
    assert note.default == Literal("00000", note.at)
    assert isinstance(note.of, Field)
    assert note.of.default == Literal({"city": "Ulm", "zip": "00000"}, note.at)


def test_the_defaults_of_a_built_result_are_filled_in(tmp_path: Path) -> None:
    value = value_of(tmp_path, "Typed(i=7)")
    found = plain(value)
    assert found["i"] == 7
    assert found["d"] == "1.50"
    assert found["day"] == "2024-01-31"
    assert found["colour"] == "red"
    assert found["home"] == {"city": "Ulm", "zip": "00000"}
    assert set(found) >= {"when", "any", "homes"}


def test_the_defaults_of_a_steps_input_are_left_to_pydantic(tmp_path: Path) -> None:
    statements = "return await ctx.step(typed, Typed(i=7, home=Address(city='x')))"
    call, _ = write(tmp_path, EXTRA + body(statements, result="Typed")).compile().body
    assert not isinstance(call, Return)
    assert plain(call.input) == {"i": 7, "home": {"city": "x"}}


def test_a_returned_input_is_rebuilt_with_its_defaults(tmp_path: Path) -> None:
    value = value_of(tmp_path, "input", result="Address", input="Address")
    assert plain(value) == {"city": ("city",), "zip": ("zip",)}


def test_aliases_name_the_keys_of_json(tmp_path: Path) -> None:
    value = value_of(
        tmp_path, "Paid(order_id=input.order_id, note=input.note)", result="Paid", input="Aliased"
    )
    found = plain(value)
    assert found["order_id"] == ("orderId/order_id",)
    assert found["note"] == ("theNote/note",)
    built = value_of(tmp_path, "Aliased(orderId='x', note='y')", result="Aliased", input="Order")
    assert plain(built) == {"orderId": "x", "theNote": "y"}
    statements = """
        a = await ctx.step(make_aliased, input)
        await ctx.step(take_aliased, a)
        return Paid(order_id=a.order_id)
    """
    flow = write(tmp_path, EXTRA + body(statements)).compile()
    end = flow.body[-1]
    assert isinstance(end, Return)
    assert plain(end.value)["order_id"] == ("orderId",)


REFUSED = [
    # steps and results of the wrong model
    ("return await ctx.step(ship, «input)", "step ship takes Paid, not Order"),
    (
        "p = await ctx.step(charge, input)\nreturn await ctx.step(charge, «p)",
        "takes Order, not Paid",
    ),
    ("c = await ctx.step(charge, input)\nreturn c.«order_id", "returns Paid, not str"),
    ("return «input", "workflow w returns Paid, not Order"),
    ("return await «ctx.step(make_fancy, input)", "returns Paid, not Fancy"),
    ("return await ctx.step(charge, «'x')", "takes Order, not str"),
    ("return await ctx.step(charge, «{'order_id': 'x'})", "takes Order, not dict"),
    ("return «1", "returns Paid, not int"),
    ("return «[Paid(order_id='x'), input]", "not list"),
    # constructors
    ("return «Paid()", "Paid needs 'order_id' (str)"),
    ("return Paid(order_id='x', colour=«1)", "Paid has no field 'colour'"),
    ("return Paid(order_id='x', address=«{'city': 'y'})", "not dict"),
    # what may be None
    ("return Paid(order_id=input.customer.«name)", "may be None (Customer | None)"),
    # what JSON does not have
    ("h = await ctx.step(make_hidden, input)\nreturn Paid(order_id=h.«secret)", "left out of JSON"),
    ("h = await ctx.step(make_hidden, input)\nreturn Paid(order_id=h.«password)", "SecretStr"),
    ("h = await ctx.step(make_hidden, input)\nreturn Paid(order_id=h.«written)", "serializer"),
    ("h = await ctx.step(make_hidden, input)\nreturn Paid(order_id=h.«method)", "not a field"),
    ("h = await ctx.step(make_hidden, input)\nreturn await ctx.step(take_hidden, «h)", "SecretStr"),
    ("t = await ctx.step(make_twonames, input)\nreturn await ctx.step(take_twonames, «t)", "alias"),
    (
        "s = await ctx.step(make_stricter, input)\nreturn await ctx.step(take_strict, «s)",
        "not Stri",
    ),
    # what is built without pydantic
    ("return «Fancy(name='x')", "returns Paid, not Fancy"),
    # a name that the alias hides
    ("return await ctx.step(take_twonames, TwoNames(city=«'x'))", "no field 'city'"),
]


@pytest.mark.parametrize(("statements", "message"), REFUSED, ids=[s for s, _ in REFUSED])
def test_what_does_not_fit_is_refused_with_its_place(
    tmp_path: Path, statements: str, message: str
) -> None:
    written = write(tmp_path, EXTRA + body(statements))
    error = written.refused()
    assert message in error.reason
    assert (error.line, error.column) == (written.line, written.column)
    assert error.allowed


@pytest.mark.parametrize(
    ("model", "built", "message"),
    [
        ("Fancy", "Fancy(name='x')", "has validators"),
        ("Computed", "Computed(net=1)", "computed fields"),
        ("Fresh", "Fresh()", "made anew"),
        ("Hidden", "Hidden()", "serializers"),
        ("Shouting", "Shouting(name='x')", "change their values"),
        ("Limited", "Limited(count=-1)", "greater than or equal to 0"),
        ("Limited", "Limited(count=input.i)", "nothing would check"),
    ],
)
def test_a_result_that_only_pydantic_could_build_is_refused(
    tmp_path: Path, model: str, built: str, message: str
) -> None:
    error = write(tmp_path, EXTRA + body(f"return {built}", result=model, input="Typed")).refused()
    assert message in error.reason


@pytest.mark.parametrize(
    "statements",
    [
        "return await ctx.step(take_fancy, Fancy(name='x'))",
        "return await ctx.step(take_computed, Computed(net=1))",
        "return await ctx.step(take_fresh, Fresh())",
        "return await ctx.step(take_limited, Limited(count=input.i))",
        "c = await ctx.step(make_computed, Order(order_id='x'))\n"
        "return Paid(order_id='x', count=c.gross)",
        "f = await ctx.step(make_fancy, Order(order_id='x'))\nreturn Paid(order_id=f.name)",
    ],
)
def test_what_pydantic_reads_again_may_have_validators(tmp_path: Path, statements: str) -> None:
    assert write(tmp_path, EXTRA + body(statements, input="Typed")).compile()


@pytest.mark.parametrize(
    ("model", "statements", "message"),
    [
        ("Fancy", "return Paid(order_id=input.name)", "has validators"),
        ("TwoNames", "return Paid(order_id=input.city)", None),
        ("Computed", "return Paid(order_id='x', count=input.gross)", "not a field"),
        ("Stricter", "return await ctx.step(take_strict, input)", "takes Strict, not Stricter"),
    ],
)
def test_the_input_is_what_the_caller_sent(
    tmp_path: Path, model: str, statements: str, message: str | None
) -> None:
    written = write(tmp_path, EXTRA + body(statements, input=model))
    if message is None:
        assert written.compile()
    else:
        assert message in written.refused().reason


def test_an_input_whose_default_differs_at_each_reading_is_refused(tmp_path: Path) -> None:
    written = write(tmp_path, EXTRA + body("return Paid(order_id='x')", input="Fresh"))
    with pytest.raises(DefinitionError, match=r"Fresh\.id gets another default at each reading"):
        written.compile()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("callback: type", "have no JSON schema"),
        ("x: float = float('inf')", "have no JSON schema"),
        ("x: str = 'a\\x00'", "U.0000"),
    ],
)
def test_an_input_without_a_schema_that_postgresql_can_hold_is_refused(
    tmp_path: Path, field: str, message: str
) -> None:
    source = f"\n\nclass Odd(BaseModel):\n    {field}\n"
    written = write(tmp_path, source + body("return Paid(order_id='x')", input="Odd"))
    with pytest.raises(DefinitionError, match=message):
        written.compile()
