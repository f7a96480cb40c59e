"""Writes of one flush: what wins where a node is written twice."""

from __future__ import annotations

import pytest

from pgflows.engine.node.results import Result
from pgflows.engine.write.checkpoint import Columns, Write

DONE = Write(("a",), "completed", Result('"done"'), "i::1")
RUNNING = Write(("a",), "running", None, "i::1")
AGAIN = Write(("a",), "running", None, "i::2")


@pytest.mark.parametrize(
    ("writes", "status", "result", "execution"),
    [
        ([RUNNING, DONE], "completed", '"done"', "i::1"),
        ([DONE, RUNNING], "completed", '"done"', "i::1"),
        ([DONE, AGAIN], "running", None, "i::2"),
        ([RUNNING, AGAIN, RUNNING], "running", None, "i::1"),
    ],
    ids=["in-order", "late", "next-iteration", "running"],
)
def test_a_node_that_ended_stays_ended_in_its_execution(
    writes: list[Write], status: str, result: str | None, execution: str
) -> None:
    columns = Columns()
    for write in writes:
        columns.add("i", [write])
    assert columns.arguments() == (["i"], ["a"], [status], [result], [execution])
