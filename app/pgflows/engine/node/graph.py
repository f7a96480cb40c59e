"""An instance's graph in memory: nodes linked to their children."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asyncpg import Record

from pgflows.compiled import Prepared, parse


@dataclass(eq=False)
class Node:
    """One row of df.nodes, and what is computed once for a graph.

    `chain` is the node and the ancestors that complete at the same moment with the same result: the
    THEN whose right side it is, the IF whose branch it is. `completes` names those of them that
    have a row. `rising` is the node and the ancestors that fail with it, up to where an arm ends.
    `ends` says that the instance completes with the node, `unused` that nobody looks at its result.
    A `silent` node gets a row only if it fails: readers of a prepared graph tell its state from the
    nodes below it.
    """

    id: str
    type: str
    query: str | None
    name: str | None
    left: Node | None = None
    right: Node | None = None
    condition: Node | None = None
    extra: list[Node] = field(default_factory=list)
    parent: Node | None = None
    role: str = ""
    chain: tuple[Node, ...] = ()
    completes: tuple[str, ...] = ()
    rising: tuple[Node, ...] = ()
    ends: bool = False
    unused: bool = False
    silent: bool = False
    in_loop: bool = False

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The JSON that nodes other than SQL, THEN and SLEEP keep in `query`."""
        found = json.loads(self.query) if self.query else {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def prepared(self) -> Prepared | None:
        """How a compiled node, which only computes, is prepared; None for all other nodes."""
        node = parse(self.query or "") if self.type == "SQL" else None
        return node.prepared() if node is not None else None

    @cached_property
    def sets(self) -> frozenset[str]:
        """The capture names that the node and all below it may set."""
        names: set[str] = set()
        todo: list[Node] = [self]
        while todo:
            node = todo.pop()
            if node.name:
                names.add(node.name)
            todo.extend(node.children)
        return frozenset(names)

    @property
    def children(self) -> list[Node]:
        return [n for n in (self.left, self.right, self.condition, *self.extra) if n is not None]

    @property
    def arms(self) -> list[Node]:
        """The arms of a JOIN or RACE in order."""
        return [n for n in (self.left, self.right, *self.extra) if n is not None]


Row = Mapping[str, Any] | Record
BOUNDARIES = ("JOIN", "RACE", "LOOP")  # a failure below one is reported in its words


def build(root_id: str, rows: Sequence[Row], *, prepared: bool = False) -> Node:
    """Links the rows of one instance, or of a prepared graph; returns the root.

    Raises KeyError if a child is missing, ValueError if the rows are not a tree.
    """
    nodes = {r["id"]: Node(r["id"], r["node_type"], r["query"], r["result_name"]) for r in rows}
    children = {r["id"]: (r["left_node"], r["right_node"]) for r in rows}
    for node in nodes.values():
        left, right = children[node.id]
        node.left = _adopt(node, nodes, left, "left")
        node.right = _adopt(node, nodes, right, "right")
        if node.type in ("IF", "LOOP", "JOIN"):
            node.condition = _adopt(node, nodes, node.spec.get("condition_node"), "condition")
            node.extra = [
                child
                for other in node.spec.get("extra_nodes", ())
                if (child := _adopt(node, nodes, other, "extra"))
            ]
    root = nodes[root_id]
    if root.parent is not None:
        raise ValueError(f"the root {root_id} is below node {root.parent.id}")
    for node in nodes.values():
        node.silent = prepared and node.type == "THEN" and node is not root
    _relate(root)
    return root


def _adopt(parent: Node, nodes: Mapping[str, Node], child_id: str | None, role: str) -> Node | None:
    if child_id is None:
        return None
    child = nodes[child_id]
    if child.parent is not None:
        raise ValueError(f"node {child_id} has two parents")
    child.parent, child.role = parent, role
    return child


def _relate(root: Node) -> None:
    """Fills what is computed once, from the root down."""
    todo = [root]
    while todo:
        node = todo.pop()
        parent = node.parent
        if parent is None:
            node.chain, node.rising, node.ends = (node,), (node,), True
        else:
            passes_on = (parent.type == "THEN" and node.role == "right") or (
                parent.type == "IF" and node.role in ("left", "right")
            )
            node.chain = (node, *parent.chain) if passes_on else (node,)
            node.ends = passes_on and parent.ends
            node.rising = (node,) if parent.type in BOUNDARIES else (node, *parent.rising)
            node.unused = _is_unused(node)
            node.in_loop = parent.in_loop or parent.type == "LOOP"
        node.completes = tuple(n.id for n in node.chain if not n.silent)
        todo.extend(node.children)


def _is_unused(node: Node) -> bool:
    """The result of the left side of a THEN is dropped, unless somebody gave it a name."""
    top = node.chain[-1]
    dropped = top.parent is not None and top.parent.type == "THEN" and top.role == "left"
    return dropped and not any(n.name for n in node.chain)
