"""Quoting: the one place where values become SQL text, proved by round trips through a server.

The orchestrator substitutes `{name}` and `$name` everywhere in a node's text, string literals
included; so a literal never shows a brace or a dollar sign but as an escape.
"""

from __future__ import annotations

import json
from typing import Any

from pgflows.database.storable import check_text

ESCAPED = {"\\": "\\\\", "'": "''", "{": "\\x7b", "$": "\\x24"}


def text(value: str) -> str:
    """A string literal that means itself inside a node: nothing in it is substituted."""
    return _literal(value, ESCAPED)


def json_literal(value: Any) -> str:
    """A jsonb literal that means itself inside a node."""
    return f"{text(_json(value))}::jsonb"


def node_text(value: str) -> str:
    """A string literal around a node's own text, whose braces and dollars are meant."""
    return _literal(value, {"\\": "\\\\", "'": "''"})


def _literal(value: str, escapes: dict[str, str]) -> str:
    check_text(value)
    needs = any(c in value for c in escapes if c != "'") or not all(map(_printable, value))
    if not needs:
        return "'" + value.replace("'", "''") + "'"
    return "E'" + "".join(escapes.get(c) or _escape(c) for c in value) + "'"


def _printable(character: str) -> bool:
    return character.isprintable() or character == "\n"


def _escape(character: str) -> str:
    if _printable(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json(value: Any) -> str:
    compact = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in compact)
