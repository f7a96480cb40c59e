"""Results of nodes: JSON text, what a condition makes of it, and rows of PostgreSQL as JSON."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Any

from asyncpg import Attribute, Record

from pgflows.database.storable import Unstorable, check_json

FALSE_WORDS = ("", "false", "f", "no")
SUPPORTED = (
    "bool, int2, int4, int8, float4, float8, text, varchar, name, numeric, uuid, timestamptz, "
    "timestamp, date, jsonb, json, void"
)


class NodeFailed(Exception):
    """A node ends in failure; the text is what its row shows, `code` PostgreSQL's SQLSTATE."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Refused(NodeFailed):
    """The engine itself refused what a node asked for."""


class Result:
    """A node's result: compact JSON text, parsed when somebody looks inside."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def of(cls, value: Any) -> Result:
        return cls(dump(value))

    def forgetful(self) -> Result:
        """The same, where nobody will ask for the order of its keys."""
        copy = Result(self.text)
        copy.__dict__["ordered"] = False
        return copy

    @cached_property
    def value(self) -> Any:
        """Raises NodeFailed if it is JSON that cannot be read here."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as e:
            raise NodeFailed(f"a result cannot be read: {e}") from e

    @cached_property
    def ordered(self) -> bool:
        """True if jsonb would lose the order of keys, so that the text must be kept too."""
        try:
            return _loses_order(self.value)
        except NodeFailed:
            return True

    @property
    def rows(self) -> list[Any] | None:
        """The rows of an SQL result, None for any other."""
        found = self.value.get("rows") if isinstance(self.value, dict) else None
        return found if isinstance(found, list) else None

    def truth(self) -> bool:
        """The contract's condition: the first column of the first row; no rows are false."""
        rows = self.rows
        if rows is None:
            return truthy(self.value)
        return bool(rows) and truthy(first_column(rows[0]))


# json.dumps would make one for each call
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dump(value: Any) -> str:
    return ENCODER.encode(value)


def first_column(row: Any) -> Any:
    return next(iter(row.values()), None) if isinstance(row, dict) else row


def truthy(value: Any) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in FALSE_WORDS:
            return False
        try:
            return Decimal(word) != 0
        except ArithmeticError:
            return True
    return bool(value)


def _loses_order(value: Any) -> bool:
    """jsonb sorts keys by length, then bytes."""
    todo = [value]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo.extend(found)
        elif isinstance(found, dict):
            keys = [k.encode("utf-8", "surrogatepass") for k in found]
            if any((len(a), a) > (len(b), b) for a, b in pairwise(keys)):
                return True
            todo.extend(found.values())
    return False


def storable(text: str) -> str:
    """The text of a result itself. Raises NodeFailed where jsonb cannot hold it."""
    try:
        return check_json(text)
    except Unstorable as e:
        raise NodeFailed(f"the result holds {e.what}, which PostgreSQL cannot store") from None


def _fraction(text: str) -> str:
    """Six digits of microseconds become three where three are enough, none where there are none."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits, zone = tail[:6], tail[6:]
    return f"{head}.{digits[:3] if digits.endswith('000') else digits}{zone}"


def _timestamp(value: dt.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC)
    return _fraction(value.isoformat())


def _float(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    return value


ENCODERS: dict[str, Callable[[Any], Any]] = {
    "bool": _plain,
    "int2": _plain,
    "int4": _plain,
    "int8": _plain,
    "float4": _float,
    "float8": _float,
    "text": _plain,
    "varchar": _plain,
    "name": _plain,
    "unknown": _plain,
    "numeric": lambda v: format(v, "f"),
    "uuid": str,
    "timestamptz": _timestamp,
    "timestamp": _timestamp,
    "date": lambda v: v.isoformat(),
    "json": json.loads,
    "jsonb": json.loads,
    "void": lambda v: None,
}
CATALOG_NAMES = frozenset(
    {"regclass", "regproc", "regtype", "regrole", "xid", "xid8", "cid", "tid"}
)


def encode_rows(attributes: Sequence[Attribute], records: Sequence[Record]) -> Result:
    """`{"rows": [{column: value}], "row_count": n}`; an unsupported type fails the node by name."""
    encoders: list[tuple[str, Callable[[Any], Any]]] = []
    for a in attributes:
        encoder = ENCODERS.get(a.type.name) if a.type.kind == "scalar" else None
        if encoder is None:
            raise NodeFailed(
                f"Unsupported column type '{_type_name(a)}' for column '{a.name}'. "
                f"Supported types: {SUPPORTED}."
            )
        encoders.append((a.name, encoder))
    rows = [
        {
            name: None if v is None else encode(v)
            for (name, encode), v in zip(encoders, r, strict=True)
        }
        for r in records
    ]
    return Result.of({"rows": rows, "row_count": len(rows)})


def _type_name(attribute: Attribute) -> str:
    name = attribute.type.name
    if name in CATALOG_NAMES:
        return name
    renamed = {"bpchar": "CHAR", "char": '"CHAR"'}.get(name)
    return renamed or name.upper()
