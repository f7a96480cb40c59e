"""Variables of a node's text: `{name}` first, then `$name`, as the contract says (§3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pgflows.engine.node.results import NodeFailed, Result, dump, first_column

BRACED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
CAPTURED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)(?:\.(\*|[A-Za-z_][A-Za-z0-9_]*))?(\?)?")
MOST_ROWS = 10_000
LONGEST_NAME = 100

Captures = Mapping[str, Result]
Lookup = Callable[[re.Match[str]], str]


def in_sql(text: str, variables: Mapping[str, str], captures: Captures) -> str:
    """SQL text with captures as quoted literals; what names nothing stays as it is."""
    return _apply(text, variables, captures, _sql_lookup)


def literals(text: str, captures: Captures) -> list[Any] | None:
    """The values that `in_sql` will put into a text; None where it puts in other things too."""
    if BRACED.search(text.replace("'{sys_instance_id}'", "")):
        return None
    values = []
    for m in CAPTURED.finditer(text) if "$" in text and captures else ():
        result = captures.get(m[1])
        if result is None:
            continue
        if m[2] == "*":
            return None
        values.append(_find(result, m[1], m[2], True)[0])
    return values


def in_field(text: str, variables: Mapping[str, str], captures: Captures) -> str:
    """A URL, body or header value with captures as raw text; a missing key fails the node.

    What asks with `?` for a missing key stays as it is, as it does in SQL.
    """
    if len(text) <= LONGEST_NAME and (whole := _reference(text)) is not None:
        return _field_lookup(captures)(whole)
    return _apply(text, variables, captures, _field_lookup)


@lru_cache(maxsize=1000)
def _reference(text: str) -> re.Match[str] | None:
    """A field that is one reference and nothing else, as most are that a compiler writes."""
    return CAPTURED.fullmatch(text)


def _apply(
    text: str,
    variables: Mapping[str, str],
    captures: Captures,
    lookup: Callable[[Captures], Lookup],
) -> str:
    if "{" in text:
        text = BRACED.sub(lambda m: variables.get(m[1], m[0]), text)
    if "$" in text and captures:
        text = CAPTURED.sub(lookup(captures), text)
    return text


def _sql_lookup(captures: Captures) -> Lookup:
    def literal(m: re.Match[str]) -> str:
        name, column, optional = m[1], m[2], m[3]
        result = captures.get(name)
        if result is None:
            return m[0]
        if column == "*":
            return _values(name, result) + (optional or "")
        found, missing = _find(result, name, column, bool(optional))
        if missing is not None:
            return m[0]
        return quote(found)

    return literal


def _field_lookup(captures: Captures) -> Lookup:
    def raw(m: re.Match[str]) -> str:
        name, column, optional = m[1], m[2], m[3]
        result = captures.get(name)
        if result is None:
            return m[0]
        if column == "*":
            return dump(_rows(name, result)) + (optional or "")
        found, missing = _find(result, name, column, bool(optional))
        if missing is not None and optional:
            return m[0]
        if missing is not None:
            known = ", ".join(missing)
            raise NodeFailed(
                f"${name}.{column}: result has no field '{column}' (available: {known})"
            )
        if found is None:
            return "NULL"
        return found if isinstance(found, str) else dump(found)

    return raw


def _find(
    result: Result, name: str, column: str | None, optional: bool
) -> tuple[Any, list[str] | None]:
    """The value behind a reference, and the known keys where the key is not among them."""
    rows = result.rows
    label = f"${name}.{column}" if column else f"${name}"
    if rows is None:
        if column is None:
            return result.text, None
        flat = result.value
        if not isinstance(flat, dict):
            raise NodeFailed(f"{label}: result is neither a row set nor a JSON object")
        if column not in flat:
            return None, list(flat)
        found = flat[column]
    elif not rows:
        if not optional:
            raise NodeFailed(f"${name} has no rows — query returned zero results")
        return None, None
    elif column is None:
        found = first_column(rows[0])
    elif column not in rows[0]:
        return None, list(rows[0])
    else:
        found = rows[0][column]
    if found is None and not optional:
        raise NodeFailed(
            f"{label} is NULL" + ("" if column else " — first column of first row is NULL")
        )
    return found, None


def quote(value: Any) -> str:
    """A JSON value as an SQL literal."""
    if value is None:
        return "NULL"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return dump(value)
    text = value if isinstance(value, str) else dump(value)
    return "'" + text.replace("'", "''") + "'"


def _rows(name: str, result: Result) -> list[Any]:
    rows = result.rows
    if rows is None:
        raise NodeFailed(f"${name}.*: the result has no rows")
    if len(rows) > MOST_ROWS:
        raise NodeFailed(f"${name}.*: {len(rows)} rows are more than the limit of {MOST_ROWS}")
    return rows


def _values(name: str, result: Result) -> str:
    rows = _rows(name, result)
    alias = '"' + name.replace('"', '""') + '"'
    if not rows:
        return f"(SELECT NULL WHERE false) AS {alias}"
    columns = ",".join('"' + c.replace('"', '""') + '"' for c in rows[0])
    values = ", ".join("(" + ", ".join(map(quote, row.values())) + ")" for row in rows)
    return f"(VALUES {values}) AS {alias}({columns})"
