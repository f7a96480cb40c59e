"""The text of a compiled node: what is written is read back, and nothing else is."""

from __future__ import annotations

from typing import Any

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflows.compiled import MARK, NodeText, parse
from pgflows.flow.graph import quote

PLACE = "'{sys_instance_id}', 'main', $e.seq"
HEAD = f"{MARK} with s0 as materialized (select pgflows.take({PLACE}) v)"

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
atoms = st.one_of(
    texts.map(quote.text),
    st.recursive(st.none() | st.booleans() | st.integers() | texts, st.lists).map(
        quote.json_literal
    ),
    st.sampled_from(["v", "v->'a'", "true", "null", "12.5", '"a name, with a ("', r"E'\\''x'"]),
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1).map(lambda parts: f"coalesce({', '.join(parts)})"),
        st.lists(inner, min_size=1).map(lambda parts: f"array[{', '.join(parts)}]"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
        st.tuples(inner, inner).map(lambda p: f"case when {p[0]} is null then {p[1]} end"),
        inner.map("(select {} v from (values (1)) s0)".format),
    ),
    max_leaves=8,
)
strands = st.from_regex(r"[A-Za-z0-9_@#.-]+", fullmatch=True)
seqs = st.sampled_from(["0", "$e.seq", "$before.seq"])
lists = st.lists(expressions, max_size=3).map(tuple)
nodes = st.builds(
    NodeText, strands, seqs, assignments=lists, condition=expressions, steps=lists
) | st.builds(NodeText, strands, seqs, assignments=lists, output=expressions)


@given(nodes)
def test_every_compiled_node_is_read_back_from_its_text(node: NodeText) -> None:
    assert parse(node.text()) == node


@given(nodes)
def test_every_compiled_node_can_be_prepared_for_one_run_and_for_many(node: NodeText) -> None:
    prepared = node.prepared()
    for text in (prepared.one, prepared.each):
        pglast.parse_sql(f"prepare x {text}")
        assert "{" not in text
    assert (prepared.capture is None) == (node.seq == "0")
    assert all(expression in prepared.each for expression in (*node.assignments, *node.steps))


@given(nodes, st.integers(0), st.sampled_from(["", "'", "(", ")", ", ", " ", "x", "--", "$e.x"]))
def test_a_compiled_text_that_was_altered_is_that_of_another_node_or_of_none(
    node: NodeText, at: int, other: str
) -> None:
    text = node.text()
    at %= len(text)
    altered = text[:at] + other + text[at + 1 :]
    found = parse(altered)
    assert found is None or found.text() == altered


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " v",
        "v, v",
        "v) v",
        "(v",
        "v]",
        "'open",
        '"open',
        "v -- comment",
        "v /* comment",
        "v; select 1",
        "'{sys_label}'",
        "$e.seq",
        "$1",
        "$$v$$",
        r"'a\'",
    ],
)
def test_a_compiled_node_takes_only_expressions_that_can_be_read_back(expression: str) -> None:
    for node in ({"assignments": (expression,)}, {"steps": (expression,)}, {"output": expression}):
        with pytest.raises(ValueError, match=r"expression|parenthesis|closes nothing|two things"):
            NodeText("main", "0", **node)


@pytest.mark.parametrize(
    "node",
    [
        {"strand": "it's"},
        {"strand": ""},
        {"seq": "1"},
        {"seq": "$e.call"},
        {"output": "v", "steps": ("v",)},
        {"output": "v", "condition": "false"},
    ],
)
def test_a_compiled_node_without_a_place_or_with_two_ends_is_refused(node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no place|asks for no steps"):
        NodeText(**{"strand": "main", "seq": "0"} | node)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "select 1",
        "select PUT, v) as output from s1",
        "select FINISH, v) as output from s1",
        "select FINISH, v) as output from s0 where false",
        "select r.c, r.seq from s0, PUT, s0.v, true, v) r",
        "select r.c, r.seq from s0, PUT, s0.v, true, jsonb_build_array(v)) r",
    ],
)
def test_what_the_renderer_did_not_write_is_not_a_compiled_node(rest: str) -> None:
    calls = {"PUT": f"pgflows.put({PLACE}", "FINISH": f"pgflows.finish({PLACE}"}
    for name, call in calls.items():
        rest = rest.replace(name, call)
    assert parse(f"{HEAD} {rest}") is None
    assert parse(rest) is None


def test_a_compiled_node_is_all_of_its_text_and_in_one_strand() -> None:
    text = NodeText("main", "$e.seq", output="v").text()
    assert text.startswith(HEAD)
    for other in (f" {text}", f"{text} ", text.replace("main", "side", 1), text.lower()[1:]):
        assert parse(other) is None


def test_a_compiled_node_that_cannot_be_prepared_names_its_run_by_values() -> None:
    prepared = NodeText("main", "$e.seq", output="v->'x'").prepared()
    filled = prepared.filled("0000000a", 7)
    assert "pgflows.take('0000000a', 'main', 7)" in filled
    assert "$" not in filled
