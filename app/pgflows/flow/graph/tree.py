"""A graph of df nodes: what a program becomes, and what the renderer writes as SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sql:
    """A statement; `result_name` is the name under which later nodes read its result."""

    query: str
    result_name: str | None = None


@dataclass(frozen=True)
class Http:
    """A call, which waits for `timeout` seconds at most."""

    url: str
    method: str
    body: str
    headers: Mapping[str, str]
    timeout: int


@dataclass(frozen=True)
class Then:
    """One node after the other; the result is that of the second."""

    first: Node
    second: Node


Node = Sql | Http | Then


def sequence(nodes: Sequence[Node]) -> Node:
    """The nodes in order, as a tree of least depth: orchestrators limit the depth."""
    if len(nodes) == 1:
        return nodes[0]
    half = (len(nodes) + 1) // 2
    return Then(sequence(nodes[:half]), sequence(nodes[half:]))
