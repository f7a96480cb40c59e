"""The README's tour, block by block, against a service of one's own."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgflows.database.embedded import EmbeddedServer
from tests.conftest import Spawn

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory
    EmbeddedServer(directory).stop("immediate")


def test_the_tour_does_what_it_says(tmp_path: Path, data_dir: Path, spawn: Spawn) -> None:
    tour = README.split("<!-- tour")[1].split("<!-- end of tour -->")[0]
    service = spawn("dev", PGFLOWS_DATA_DIR=str(data_dir)).wait_until_ready(60)
    told = []
    for block in BLOCK.findall(tour):
        text = block.replace("http://127.0.0.1:8000", service.url)
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        told.append(done.stdout)
    start, status, history, export = told
    assert json.loads(start)["status"] == "completed"
    assert json.loads(status)["output"] == json.loads(start)["output"]
    steps = json.loads(history)["steps"]
    assert [s["step_key"] for s in steps] == [
        "charge_payment#1",
        "reserve_stock#1",
        "ship_order#1",
    ]
    assert [len(s["attempts"]) for s in steps] == [1, 1, 1]
    assert "select pgflows.define(" in export
    assert "df.http(" in export


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"`?make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
