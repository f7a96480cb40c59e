"""The texts of compiled nodes, as an engine prepares them on its sessions.

Our renderer (`flow/render.py`) writes few forms of statement, which differ between runs in the
instance and the seq of the strand only. So each is planned once a session, for one run
and, where the form is one of those that `take_each` and its like know, for many runs at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "/*pgflows*/"
VARIABLE = re.compile(r"[{]|[$][A-Za-z_]")
TAKE = r" with s0 as materialized \(select pgflows\.take\(\$1, 'main', (?P<seq>0|\$2)\) v\) select "
CAPTURED = (
    r"r\.c, r\.seq, r\.keys->>0 as key_1, r\.bodies->>0 as body_1, "
    r"r\.signatures->>0 as signature_1 "
)
PUT = (
    r"from s0, pgflows\.put\(\$1, 'main', (?P=seq), s0\.v, true, "
    r"jsonb_build_array\((?P<step>.*)\)\) r"
)
FINISH = r"pgflows\.finish\(\$1, 'main', (?P=seq), (?P<output>.*)\) as output from s0"
FORM = re.compile(re.escape(MARK) + TAKE + f"(?:{CAPTURED}{PUT}|{FINISH})", re.DOTALL)
ONE = (
    "(text, integer) as select jsonb_build_object('rows', coalesce(jsonb_agg(to_jsonb(q)), '[]'), "
    "'row_count', count(*))::text from ({text}\n) q"
)
EACH = "(text[], integer[], integer[]) as select ($3)[p.n], p.result from "
PUT_EACH = (
    EACH + "(select array_agg(s0.n) n, array_agg(s0.v) v, array_agg({step}) step "
    "from pgflows.take_each($1, $2) s0) a, pgflows.put_each($1, $2, a.n, a.v, a.step) p"
)
FINISH_EACH = (
    EACH + "(select array_agg(s0.n) n, array_agg({output}) output "
    "from pgflows.take_each($1, $2) s0) a, pgflows.finish_each($1, a.n, a.output) p"
)


@dataclass(frozen=True)
class Shape:
    """What follows PREPARE and a name: for one run ($1 the instance, $2 the seq), and for many.

    `each` takes instances, seqs and what to number the answers by; it is None where the form is
    not known. `has_seq` says whether the text holds a seq; the first node of a run has none.
    """

    one: str
    each: str | None
    has_seq: bool

    def filled(self, instance: str, seq: int) -> str:
        """The statement for one run, with its values in it."""
        text = self.one.partition(" as ")[2]
        return text.replace("$1", f"'{instance}'").replace("$2", str(seq))


def shape_of(query: str) -> Shape | None:
    """None where the statement is not of our renderer, or holds a variable besides the two."""
    if not query.startswith(MARK):
        return None
    text = query.replace("'{sys_instance_id}'", "$1").replace("$e.seq", "$2")
    if VARIABLE.search(text):
        return None
    each = None
    if found := FORM.fullmatch(text):
        if found["step"] is not None:
            each = PUT_EACH.replace("{step}", found["step"])
        else:
            each = FINISH_EACH.replace("{output}", found["output"])
    return Shape(ONE.replace("{text}", text), each, "$2" in text)


def unprepared(query: str) -> str:
    """A compiled statement with its values in it, which answers as a prepared one does."""
    return ONE.partition(" as ")[2].replace("{text}", query)
