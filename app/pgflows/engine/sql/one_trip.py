"""A user's statement as one call to the server: effect, result as JSON, and checkpoint in one trip.

The server function df._once runs a text that answers its rows as JSON, so the statement is
wrapped, and for that the names and types of its columns must be known. They are known from the
second time that a node of the same text runs with values of the same kinds. A statement that cannot
be wrapped takes a transaction of several round trips.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncpg import Attribute

Key = tuple[str, str, str]

WRAPPABLE = re.compile(
    r"^(?:\s|--[^\n]*\n|/\*.*?\*/)*(select|insert|update|delete|values|table)\b",
    re.IGNORECASE | re.DOTALL,
)
HIDDEN_CHANGES = re.compile(r"\binto\b", re.IGNORECASE)  # select … into makes a table
FINITE = "case when {0} in ('NaN', 'Infinity', '-Infinity') then null else {0}::float8 end"
IN_RANGE = (
    "case when {0} between '0001-01-01' and '9999-12-31' or {0} is null then {0} "
    "else df._unreadable()::date end"
)
AS_JSON = {
    "bool": "{0}",
    "int2": "{0}",
    "int4": "{0}",
    "int8": "{0}",
    "text": "{0}",
    "varchar": "{0}",
    "name": "{0}",
    "uuid": "{0}",
    "date": IN_RANGE,
    "jsonb": "{0}",
    "numeric": "{0}::text",
    "float4": FINITE,
    "float8": FINITE,
}
NOTHING = '\'{"rows":[],"row_count":0}\''
MOST_KNOWN = 2000  # statements whose wrapping is kept


@dataclass(frozen=True)
class Wrapping:
    """What goes before and after the text of a statement.

    `keeps_order`: jsonb keeps the order of its columns; `has_json`: a column is jsonb.
    """

    before: str
    after: str
    keeps_order: bool
    has_json: bool

    def wrap(self, text: str) -> str:
        return f"{self.before}{text.strip().removesuffix(';')}\n{self.after}"


class Wrappings:
    """The wrappings that are known, and None for the statements that are known to have none."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Wrapping | None] = OrderedDict()

    def find(self, key: Key) -> Wrapping | None:
        return self._known.get(key)

    def learn(self, key: Key, text: str, attributes: Sequence[Attribute]) -> None:
        if key not in self._known:
            self.put(key, wrapping_of(text, attributes))

    def put(self, key: Key, wrapping: Wrapping | None) -> None:
        self._known[key] = wrapping
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def wrapping_of(text: str, attributes: Sequence[Attribute]) -> Wrapping | None:
    """None if the statement cannot be wrapped without changing what it means."""
    kind = WRAPPABLE.match(text)
    if kind is None or (kind[1].lower() == "select" and HIDDEN_CHANGES.search(text)):
        return None
    if not attributes:
        return Wrapping("with q as (", f") select {NOTHING}", True, False)
    names = [a.name for a in attributes]
    forms = [AS_JSON.get(a.type.name) if a.type.kind == "scalar" else None for a in attributes]
    if len(set(names)) < len(names) or None in forms:
        return None
    aliases = ", ".join(f"c{n}" for n in range(len(names)))
    columns = ", ".join(
        f'{str(form).format(f"c{n}")} as "{_quoted(name)}"'
        for n, (name, form) in enumerate(zip(names, forms, strict=True))
    )
    rows = "coalesce(string_agg(row_to_json(r)::text, ','), '')"
    answer = f"""'{{"rows":[' || {rows} || '],"row_count":' || count(*)::text || '}}'"""
    has_json = any(a.type.name == "jsonb" for a in attributes)
    if has_json:
        answer = f"df._readable({answer})"
    after = f") select {answer} from (select {columns} from q) r"  # noqa: S608 - names are quoted
    keys = [name.encode() for name in names]
    ordered = keys == sorted(keys, key=lambda k: (len(k), k))
    return Wrapping(f"with q({aliases}) as (", after, ordered, has_json)


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def kinds(values: Sequence[Any]) -> str:
    """What PostgreSQL makes of each literal, one letter each."""
    return "".join(map(_kind, values))


def _kind(value: Any) -> str:
    if value is None:
        return "z"
    if value is True or value is False:
        return "b"
    if isinstance(value, int):
        return "i" if abs(value) < 2**31 else "l" if abs(value) < 2**63 else "n"
    return "f" if isinstance(value, float) else "s"
