"""Where we differ from the recording on purpose, as assertions of what we do.

The reasons are in docs/differences.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """Changes to a record: texts anywhere in it, and values at a path such as `nodes.0.result`."""

    texts: tuple[tuple[str, str], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, record: Record) -> Record:
        text = json.dumps(record, ensure_ascii=False)
        for theirs, ours in self.texts:
            text = text.replace(theirs, ours)
        changed: Record = json.loads(text)
        for path, value in self.values.items():
            *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
            place: Any = changed
            for key in parents:
                place = place[key]
            place[last] = value
        return changed


def _node(index: int, status: str, result: str) -> dict[str, Any]:
    where = f"nodes.{index}"
    return {f"{where}.status": status, f"{where}.inferred": status, f"{where}.result": result}


NUMERIC = Difference(texts=(("1.5000", "1.50"),))
NAME_IS_A_TYPE = Difference(texts=(("varchar, numeric", "varchar, name, numeric"),))
CONTROL = (
    "SQL execution failed: a node may not control its transaction; "
    "leave out BEGIN, COMMIT, ROLLBACK and SAVEPOINT"
)
OUTSIDE = "df.break() was called outside of a loop. df.break() may only be used inside df.loop()."

DIFFERENCES: dict[str, Difference] = {
    "type-03 numeric": NUMERIC,
    "cond-06 0.0::numeric": Difference(
        values={"nodes.1.result": '{"rows": [{"numeric": "0.0"}], "row_count": 1}'}
    ),
    **dict.fromkeys(
        (
            "capture-00 $a",
            "capture-01 $a.v",
            "capture-02 $a.w",
            "capture-03 $a?",
            "capture-04 $a.nope?",
            "capture-05 $a.nope",
            "capture-06 $ab",
            "capture-07 $a.*",
            "capture-08 '$a'",
            "capture-09 $$a",
            "capture-10 $a$a",
            "capture-11 $a.v.w",
            "capture-12 $a-1",
            "capture-13 $A",
            "capture-14 pg_typeof($a.v)::text",
            "capture-15 pg_typeof($a.w)::text",
        ),
        NUMERIC,
    ),
    **dict.fromkeys(
        (
            "type-11 char",
            "type-17 time",
            "type-18 interval",
            "type-23 bytea",
            "type-24 int-array",
            "type-25 text-array",
            "type-26 regclass",
            "type-27 oid",
            "type-28 inet",
            "type-29 enum-like",
            "type-30 record",
            "type-32 money",
            "type-33 point",
            "type-34 xid",
        ),
        NAME_IS_A_TYPE,
    ),
    "stmt-unnamed": Difference(
        values={
            "status": "completed",
            "result": '{"rows": [{"?column?": "b"}], "row_count": 1}',
            "output": '{"rows":[{"?column?":"b"}],"row_count":1}',
        }
        | _node(0, "completed", '{"rows": [{"?column?": "b"}], "row_count": 1}')
    ),
    "stmt-begin": Difference(
        values={"status": "failed", "result": None, "output": CONTROL}
        | _node(0, "failed", json.dumps(CONTROL))
    ),
    "break-outside": Difference(
        values={"result": None}
        | _node(0, "failed", json.dumps(OUTSIDE))
        | _node(2, "failed", json.dumps(OUTSIDE))
    ),
    "http-12 GET /latin": Difference(texts=(("caf\ufffd", "café"),)),
    "multipart-mixed": Difference(texts=(("HTTP_MULTIPART node n2: data_b64", "data_b64"),)),
    "multipart-bad": Difference(
        texts=(("Invalid symbol 37, offset 0.", "Only base64 data is allowed"),)
    ),
}
