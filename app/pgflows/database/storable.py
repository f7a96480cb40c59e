"""What a value may hold: what PostgreSQL can store, and what every reader of JSON can show again.

PostgreSQL stores neither U+0000 nor halves of surrogate pairs. It stores any depth and any number
of digits, but the parsers of most languages give up on them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100  # levels of nesting; pydantic gives up soon after 200
MAX_DIGITS = 4000  # of a number; Python gives up after 4300

NUL_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the character, not a text that spells it
MANY_DIGITS = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
NUL = "the character U+0000"
SURROGATE = "half of a surrogate pair"
DEEP = f"more than {MAX_DEPTH} levels of nesting"
LONG = f"a number of more than {MAX_DIGITS} digits"


class Unstorable(ValueError):
    """A value cannot be stored because of `what` it holds, at the place `path` if that is known."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(f"{what}{' in ' if path else ''}{path} cannot be stored")
        self.what = what
        self.path = path


class _Long(str):
    """The digits of a number that is too long."""


def check_text(text: str) -> str:
    """The text itself. Raises Unstorable if no text of PostgreSQL can hold it."""
    if "\0" in text:
        raise Unstorable(NUL)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise Unstorable(SURROGATE) from e
    return text


def check_json(text: str) -> str:
    """The text of a JSON value itself. Raises Unstorable if jsonb cannot hold the value."""
    if "\\u0000" in text and NUL_ESCAPED.search(text):
        raise Unstorable(NUL)
    return check_text(text)


def check_document(text: str) -> str:
    """The text of a JSON value itself. Raises Unstorable, with the place of the fault, if jsonb
    cannot hold the value or readers cannot show it again.
    """
    try:
        check_json(text)
        if len(text) > MAX_DIGITS and MANY_DIGITS.search(text):
            check_places(_parsed(text))
        if text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(_parsed(text)):
            raise Unstorable(DEEP)
    except Unstorable:
        check_places(_parsed(text))  # which raises the same with its place
        raise
    return text


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """The object itself. Raises Unstorable if it has a fault, at whatever depth."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError as e:
        raise Unstorable(DEEP) from e
    check_document(text)
    return value


def cut(text: str, most: int) -> str:
    """The first characters of a text, with a sign in place of what cannot be stored."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def places(value: Any) -> Iterator[tuple[str, Any, int]]:
    """Every value in a JSON value: the path to it, itself, and its level of nesting, from 1."""
    left: list[tuple[str, Any, int]] = [("", value, 1)]
    while left:
        path, found, level = left.pop()
        yield path, found, level
        if isinstance(found, dict):
            inner = [(f"{path}.{k}" if path else str(k), v, level + 1) for k, v in found.items()]
        elif isinstance(found, (list, tuple)):
            inner = [(f"{path}[{n}]", v, level + 1) for n, v in enumerate(found)]
        else:
            continue
        left.extend(reversed(inner))


def check_places(value: Any) -> None:
    """Raises Unstorable for the first fault in a value, with its place."""
    for path, found, level in places(value):
        what = _fault(found, level)
        if what is not None:
            raise Unstorable(what, cut(path, 80))


def _fault(found: Any, level: int) -> str | None:
    if isinstance(found, (dict, list, tuple)):
        texts = [k for k in found if isinstance(k, str)] if isinstance(found, dict) else []
        return DEEP if level > MAX_DEPTH else next(filter(None, map(_fault_of_text, texts)), None)
    if isinstance(found, _Long) or (isinstance(found, int) and abs(found) >= 10**MAX_DIGITS):
        return LONG
    return _fault_of_text(found) if isinstance(found, str) else None


def _fault_of_text(text: str) -> str | None:
    try:
        check_text(text)
    except Unstorable as e:
        return e.what
    return None


def _parsed(text: str) -> Any:
    def number(digits: str) -> Any:
        return _Long(digits) if MANY_DIGITS.search(digits) else 0

    try:
        return json.loads(text, parse_int=number, parse_float=number)
    except RecursionError as e:
        raise Unstorable(DEEP) from e


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
