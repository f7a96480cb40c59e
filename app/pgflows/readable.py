"""Makes any JSON text readable for Python.

jsonb holds numbers and depths that Python's readers of JSON refuse. The service passes them on as
they are; the client takes each as the text that it is.
"""

from __future__ import annotations

import json
import re

MAX_DEPTH = 150  # levels of nesting; pydantic's reader ends at 200
MAX_NUMBER = 300  # characters; a float holds 308 digits before the point

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|[-\d][\d.eE+-]*')


def readable(text: str) -> str:
    """The text with what is nested too deep, and each number that is too long, as a string."""
    parts: list[str] = []
    done = depth = begin = 0
    for token in _TOKEN.finditer(text):
        match token[0][0]:
            case "[" | "{":
                depth += 1
                if depth == MAX_DEPTH + 1:
                    begin = token.start()
                continue
            case "]" | "}":
                depth -= 1
                if depth != MAX_DEPTH:
                    continue
            case '"':
                continue
            case _:
                begin = token.start() if depth <= MAX_DEPTH else begin
                if depth > MAX_DEPTH or len(token[0]) <= MAX_NUMBER:
                    continue
        parts += text[done:begin], json.dumps(text[begin : token.end()], ensure_ascii=False)
        done = token.end()
    return "".join((*parts, text[done:]))
