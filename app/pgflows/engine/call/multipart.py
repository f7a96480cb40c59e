"""multipart/form-data bodies of HTTP_MULTIPART nodes."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pgflows.engine.node.results import NodeFailed

REFERENCE = re.compile(
    r"\$[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?\??|\{[A-Za-z_][A-Za-z0-9_]*\}"
)


def encode(parts: Iterable[Mapping[str, Any]], fill: Callable[[str], str]) -> tuple[str, bytes]:
    """Content type and body. `data_b64` of a part is base64, or a reference to a value that is."""
    boundary = uuid.uuid4().hex
    chunks: list[bytes] = []
    for part in parts:
        if not isinstance(part, dict) or "name" not in part:
            raise NodeFailed("a part must be an object with a name")
        name = _quoted(fill(str(part["name"])))
        head = f'Content-Disposition: form-data; name="{name}"'
        if part.get("filename") is not None:
            head += f'; filename="{_quoted(fill(str(part["filename"])))}"'
        if part.get("content_type") is not None:
            head += f"\r\nContent-Type: {_line(fill(str(part['content_type'])))}"
        chunks.append(f"--{boundary}\r\n{head}\r\n\r\n".encode())
        chunks.append(_data(part, fill))
        chunks.append(b"\r\n")
    chunks.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(chunks)


def _data(part: Mapping[str, Any], fill: Callable[[str], str]) -> bytes:
    text, name = str(part.get("data_b64") or ""), part["name"]
    if REFERENCE.search(text) and not REFERENCE.fullmatch(text):
        raise NodeFailed(
            f"data_b64 for part '{name}' mixes a variable reference with other text. Only a "
            "whole-value reference is supported (e.g. data_b64 => '$result' or '{myvar}'), because "
            "splicing into base64 would corrupt the payload."
        )
    try:
        # PostgreSQL's encode() breaks base64 into lines
        return base64.b64decode("".join(fill(text).split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise NodeFailed(f"Invalid base64 in part '{name}': {e}") from e


def _quoted(text: str) -> str:
    """As browsers escape names within quotes."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _line(text: str) -> str:
    if "\r" in text or "\n" in text:
        raise NodeFailed("a content type must be one line")
    return text
