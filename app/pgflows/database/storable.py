"""What PostgreSQL can hold as text or jsonb: neither U+0000 nor halves of surrogate pairs."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting in what a caller sends; serialisers give up soon after 200."""

NUL_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the character, not a text that spells it
NUL = "the character U+0000"
SURROGATE = "half of a surrogate pair"


class Unstorable(ValueError):
    """PostgreSQL cannot hold a value because of `what` it holds."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} cannot be stored")
        self.what = what


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


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """The object itself. Raises Unstorable if it has a fault, at whatever depth."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError as e:
        raise Unstorable(f"more than {MAX_DEPTH} levels of nesting") from e
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(value):
        raise Unstorable(f"more than {MAX_DEPTH} levels of nesting")
    check_json(text)
    return value


def cut(text: str, most: int) -> str:
    """The first characters of a text, with a sign in place of what cannot be stored."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
