"""Stand-in and extension both have the catalogue that was recorded on the extension."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.conftest import ON_THE_EXTENSION, Database
from tests.extension.surface import RECORDED, surface


async def read(database: Database) -> dict[str, Any]:
    conn = await asyncpg.connect(database.admin_dsn)
    try:
        return await surface(conn)
    finally:
        await conn.close()


def without_traits(functions: list[list[Any]]) -> list[list[Any]]:
    """Functions without strictness and volatility, which no caller of ours depends on."""
    return [f[:5] for f in functions]


async def test_stand_in_has_the_recorded_tables(stand_in: Database) -> None:
    found = await read(stand_in)
    assert found["tables"] == RECORDED["tables"]


async def test_stand_in_has_the_recorded_functions_and_operators(stand_in: Database) -> None:
    found = await read(stand_in)
    assert without_traits(found["functions"]) == without_traits(RECORDED["functions"])
    assert found["operators"] == RECORDED["operators"]


@pytest.mark.parametrize("real", [pytest.param("extension", marks=ON_THE_EXTENSION)], indirect=True)
async def test_extension_has_the_recorded_catalogue(real: Database) -> None:
    found = await read(real)
    assert found["tables"] == RECORDED["tables"]
    assert found["functions"] == RECORDED["functions"]
    assert found["operators"] == RECORDED["operators"]
