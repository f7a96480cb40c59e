"""The text of a compiled node: the one place where it is written and read.

A compiled node takes in what its strand waited for, assigns, and then either asks for steps or
ends the run. All that it computes is an expression over `v`, the variables of the strand. The
renderer writes `NodeText.text()`, an engine reads it with `parse`. What can be written can be
read, so an engine can prepare every compiled node, for one run and for many runs at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "/*pgflows*/"
INSTANCE = "'{sys_instance_id}'"
TAKE = f"{MARK} with s0 as materialized (select pgflows.take({INSTANCE}, "
ASSIGN = " as materialized (select "
STRAND = re.compile(r"[A-Za-z0-9_@#.-]+")
CLOSING = {"(": ")", "[": "]"}
SEQ = re.compile(r"0|\$([A-Za-z_][A-Za-z0-9_]*)\.seq")
VARIABLE = re.compile(r"[{]|[$][A-Za-z0-9_$]")  # what an orchestrator or PREPARE would fill in
TOKEN = re.compile(r"E'(?:[^'\\]|\\.|'')*'|'[^']*'|\"[^\"]*\"|--|/\*|[()\[\],;'\"\\]", re.DOTALL)

ONE = (
    "(text, integer) as select jsonb_build_object('rows', coalesce(jsonb_agg(to_jsonb(q)), '[]'), "
    "'row_count', count(*))::text from ({text}\n) q"
)
EACH = (
    "(text[], integer[], integer[]) as with s0 as materialized (select n, v "
    "from pgflows.take_each($1, {strands}, $2)){assignments} "
    "select ($3)[r.n], jsonb_build_object('rows', jsonb_build_array(jsonb_build_object({row})), "
    "'row_count', 1)::text from (select array_agg(n) n, {arguments} from s{last}) a, {call} r"
)


@dataclass(frozen=True)
class Prepared:
    """What follows PREPARE and a name: `one` for one run, `each` for many runs.

    `one` takes the instance and the seq; `each` takes arrays of them, and of the numbers that its
    answers are to have. `capture` is the result that holds the seq. The first node of a run has
    none, and its seq is 0.
    """

    one: str
    each: str
    capture: str | None

    def filled(self, instance: str, seq: int) -> str:
        """The statement for one run, with its values in it."""
        text = self.one.partition(" as ")[2]
        return text.replace("$1", f"'{instance}'").replace("$2", str(seq))


@dataclass(frozen=True)
class NodeText:
    """A compiled node: where in which strand it stands, and its expressions over `v`.

    It asks for `steps` if `condition` is true, or it ends the run with `output`. `seq` is 0, or
    `$name.seq` of the node before. Raises ValueError for what `parse` could not read back.
    """

    strand: str
    seq: str
    assignments: tuple[str, ...] = ()
    condition: str = "true"
    steps: tuple[str, ...] = ()
    output: str | None = None

    def __post_init__(self) -> None:
        if not STRAND.fullmatch(self.strand) or not SEQ.fullmatch(self.seq):
            raise ValueError(f"no place in a strand: {self.strand!r}, {self.seq!r}")
        if self.output is not None and (self.steps or self.condition != "true"):
            raise ValueError("a node that ends its run asks for no steps")
        ends = () if self.output is None else (self.output,)
        for expression in (*self.assignments, self.condition, *self.steps, *ends):
            if _end(expression, 0) != len(expression) or expression != expression.strip():
                raise ValueError(f"not one expression: {expression}")
            if not expression or VARIABLE.search(expression):
                raise ValueError(f"not an expression over v: {expression}")

    def text(self) -> str:
        """The statement, with the variables that an orchestrator fills in."""
        return self._statement(INSTANCE, self.seq)

    def prepared(self) -> Prepared:
        """The statement as an engine prepares it on its sessions."""
        place = SEQ.fullmatch(self.seq)
        capture = place[1] if place else None
        one = self._statement("$1", "$2" if capture else "0")
        strands = f"array_fill('{self.strand}'::text, array[cardinality($1)])"
        if self.output is None:
            arguments = (
                f"array_agg(v) v, array_agg({self.condition}) c, array_agg({self._asked()}) steps"
            )
            call = f"pgflows.put_each($1, {strands}, $2, a.n, a.v, a.c, a.steps)"
        else:
            arguments = f"array_agg({self.output}) output"
            call = "pgflows.finish_each($1, a.n, a.output)"
        each = EACH.format(
            strands=strands,
            assignments=self._assigned("n, "),
            row=", ".join(f"'{name}', {value}" for name, value in self._row("[{}]", 1)),
            arguments=arguments,
            last=len(self.assignments),
            call=call,
        )
        return Prepared(ONE.format(text=one), each, capture)

    def _statement(self, instance: str, seq: str) -> str:
        place, last = f"{instance}, '{self.strand}', {seq}", f"s{len(self.assignments)}"
        taken = (
            f"{MARK} with s0 as materialized (select pgflows.take({place}) v)"
            f"{self._assigned('')} select "
        )
        if self.output is not None:
            return f"{taken}pgflows.finish({place}, {self.output}) as output from {last}"
        row = ", ".join(
            v if v == f"r.{name}" else f"{v} as {name}" for name, v in self._row("->>{}", 0)
        )
        put = f"pgflows.put({place}, {last}.v, {self.condition}, {self._asked()})"
        return f"{taken}{row} from {last}, {put} r"

    def _assigned(self, number: str) -> str:
        return "".join(
            f", s{k}{ASSIGN}{number}{expression} v from s{k - 1})"
            for k, expression in enumerate(self.assignments, 1)
        )

    def _asked(self) -> str:
        return f"jsonb_build_array({', '.join(self.steps)})"

    def _row(self, item: str, first: int) -> list[tuple[str, str]]:
        """The columns that the node answers; the calls of its steps read them from a capture."""
        if self.output is not None:
            return [("output", "r.output")]
        row = [("c", "r.c"), ("seq", "r.seq")]
        for k in range(len(self.steps)):
            for name, column in (("key", "keys"), ("body", "bodies"), ("signature", "signatures")):
                row.append((f"{name}_{k + 1}", f"r.{column}{item.format(k + first)}"))
        return row


def parse(text: str) -> NodeText | None:
    """The node whose text this is; None for every other text."""
    try:
        node = _read(text)
    except ValueError:
        return None
    return node if node.text() == text else None


def _read(text: str) -> NodeText:
    """Takes the pieces out; `parse` compares what they make with the text."""
    if not text.startswith(TAKE):
        raise ValueError("not a compiled node")
    (strand, seq), at = _arguments(text, len(TAKE))
    at += len(" v)")
    assignments: list[str] = []
    while text.startswith(named := f", s{len(assignments) + 1}{ASSIGN}", at):
        at += len(named)
        end = _end(text, at)
        assignments.append(text[at:end].removesuffix(f" v from s{len(assignments)}"))
        at = end + 1
    place = (strand.strip("'"), seq, tuple(assignments))
    finish = " select pgflows.finish("
    if text.startswith(finish, at):
        (_, _, _, output), _ = _arguments(text, at + len(finish))
        return NodeText(*place, output=output)
    (*_, condition, asked), _ = _arguments(
        text, text.index("pgflows.put(", at) + len("pgflows.put(")
    )
    steps, _ = _arguments(asked, asked.index("(") + 1)
    return NodeText(*place, condition, tuple(steps))


def _arguments(text: str, at: int) -> tuple[list[str], int]:
    """The arguments of the call whose parenthesis was opened before `at`, and where it ends."""
    found: list[str] = []
    while (end := _end(text, at)) < len(text):
        found.append(text[at:end])
        if text[end] == ")":
            return [argument for argument in found if argument], end + 1
        at = end + len(", ")
    raise ValueError("a call that does not end")


def _end(text: str, at: int) -> int:
    """Where the expression that begins at `at` ends: at a comma or parenthesis not its own."""
    opened: list[str] = []
    for found in TOKEN.finditer(text, at):
        match found[0]:
            case "(" | "[" as opening:
                opened.append(CLOSING[opening])
            case ")" | "," if not opened:
                return found.start()
            case ")" | "]" as closing:
                if not opened or opened.pop() != closing:
                    raise ValueError(f"a {closing} that closes nothing")
            case "--" | "/*" | ";" | "'" | '"' | "\\" as other:
                raise ValueError(f"{other} in an expression")
            case literal if literal.startswith("'") and "\\" in literal:
                raise ValueError(f"{literal} means two things: write it as E'…'")
    if opened:
        raise ValueError("a parenthesis that is not closed")
    return len(text)
