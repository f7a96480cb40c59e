"""docs/map.md names every room, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "app/pgflows"
TEXT = (ROOT / "docs/map.md").read_text()
ROWS = re.findall(r"(?m)^\| `([\w/.]+)` \|", TEXT)
SQL = "\n".join(path.read_text() for path in sorted((ROOT / "sql").rglob("*.sql")))


def rooms() -> list[str]:
    modules = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    packages = [path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*/__init__.py")]
    return sorted(modules + [f"{package}/" for package in packages if package != Path(".")])


def test_every_room_has_a_place_on_the_map() -> None:
    assert [room for room in rooms() if f"`{room}`" not in TEXT] == []


def test_every_row_of_the_map_is_a_room() -> None:
    assert sorted(ROWS) == sorted(set(ROWS))
    assert set(ROWS) <= set(rooms())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+(?:\.py|\.sql|/))`", TEXT))))
def test_every_file_on_the_map_exists(path: str) -> None:
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:pgflows|df)\.\w+)`", TEXT))))
def test_every_name_of_the_database_on_the_map_exists(name: str) -> None:
    assert re.search(rf"create (?:or replace )?(?:function|table) {re.escape(name)}\b", SQL)


def test_the_map_is_in_the_order_of_imports() -> None:
    layers = (ROOT / "pyproject.toml").read_text().partition('"Imports point one way')[2]
    names = re.findall(r"\w+", layers.partition("layers = [")[2].partition("\n]")[0])
    top = [row.removesuffix(".py").rstrip("/") for row in ROWS if "/" not in row.rstrip("/")]
    assert top == names
