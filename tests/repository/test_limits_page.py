"""docs/limits.md says what the code does."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import pytest

from pgflows import errors
from pgflows.config import Settings
from pgflows.definitions import RetryConfig
from pgflows.messages import CancelRequest, StartRequest
from pgflows.registry import NAME

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| what"))
]
UNITS = {"MiB": 1024 * 1024, "days": 1, "minutes": 1}


def amount(text: str) -> float:
    """The number in a cell like `8 MiB` or `4 000`."""
    found = re.match(r"([\d ]*\d)(?: (\w+))?", text)
    assert found, text
    return int(found[1].replace(" ", "")) * UNITS.get(found[2] or "", 1)


def rows(pattern: str) -> list[tuple[str, float]]:
    """What sets a limit, and the limit, where the former looks like this."""
    found = []
    for _, limit, source, _ in ROWS:
        named = re.match(pattern, source)
        if named:
            found.append((named[1], amount(limit)))
    assert found
    return found


@cache
def modules(package: str) -> list[ModuleType]:
    root = import_module(package)
    inner = walk_packages(getattr(root, "__path__", ()), f"{package}.")
    return [root, *(import_module(module.name) for module in inner)]


@pytest.mark.parametrize(("name", "limit"), rows(r"(`[A-Z_]+` in `pgflows[a-z.]+`)"))
def test_limits_page_has_the_value_of_each_constant(name: str, limit: float) -> None:
    constant, package = re.findall("`(.*?)`", name)
    values = [vars(m)[constant] for m in modules(package) if constant in vars(m)]
    assert values
    if constant == "NAME":
        assert NAME.fullmatch("x" * int(limit))
        assert not NAME.fullmatch("x" * int(limit + 1))
    elif constant == "LONGEST_TIMEOUT_SECONDS":
        assert set(values) == {limit * 24 * 3600}
    else:
        assert set(values) == {limit}


@pytest.mark.parametrize(("name", "limit"), rows(r"`PGFLOWS_([A-Z_]+)`"))
def test_limits_page_has_the_default_of_each_setting(name: str, limit: float) -> None:
    assert Settings.model_fields[name.lower()].default == limit


@pytest.mark.parametrize(("path", "limit"), rows(r"`(sql/[a-z0-9_/.]+)`"))
def test_limits_page_has_a_number_that_the_sql_holds(path: str, limit: float) -> None:
    assert re.search(rf"\b{limit:.0f}\b", (ROOT / path).read_text())


def test_limits_in_sql_are_those_of_python() -> None:
    start = (ROOT / "sql" / "functions" / "40_start.sql").read_text()
    assert "$.**{100} ?" in start
    assert "> 4000" in start
    tables = (ROOT / "sql" / "migrations" / "0002_tables.sql").read_text()
    assert f"('max_input_bytes', '{1024 * 1024}')" in tables
    assert RetryConfig().max_retries == 3


def test_limits_of_messages_are_those_of_the_page() -> None:
    for model, field, most in ((StartRequest, "label", 255), (CancelRequest, "reason", 1000)):
        assert f'"maxLength": {most}' in str(
            model.model_json_schema()["properties"][field]
        ).replace("'", '"')


def test_errors_of_the_limits_page_exist() -> None:
    recorded = {"OutputTooLarge", "WrongResult", "StepTimeout", "ProcessDied", "Interrupted"}
    named = {word for row in ROWS for word in re.findall(r"`([A-Z][a-z]\w+)`", row[3])}
    assert {n for n in named - recorded if not hasattr(errors, n)} == set()
