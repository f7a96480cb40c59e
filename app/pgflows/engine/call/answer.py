"""What a peer answered: the result of an HTTP node."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field

from pgflows.engine.node.results import Result

TEXTUAL = ("text/", "json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv")
LONGEST_RETRY_AFTER = 86_400.0  # seconds


@dataclass(slots=True)
class Answer:
    """Status, headers (names in lower case) and body; status 0 if there was no answer."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    truncated: bool = False

    def header(self, name: str) -> str | None:
        """The last header of this (lower-case) name."""
        return next((v for k, v in reversed(self.headers) if k == name), None)

    def retry_after(self) -> float | None:
        """Seconds; None if the header is missing or not a number of them."""
        try:
            seconds = float(self.header("retry-after") or math.nan)
        except ValueError:
            return None
        return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER)

    def text(self) -> tuple[str, str]:
        """The body as text if the content type says so (UTF-8 unless it names a charset), otherwise
        in base64; and which of the two it is.
        """
        kind, _, parameters = (self.header("content-type") or "").lower().partition(";")
        if not kind or any(word in kind for word in TEXTUAL):
            charset = parameters.partition("charset=")[2].split(";")[0].strip(' "') or "utf-8"
            try:
                text = self.body.decode(charset)
                if charset != "utf-8":
                    text.encode()  # some charsets can name half of a surrogate pair
                return text, "text"
            except (LookupError, ValueError):  # an unknown charset, or not in this charset
                if kind:
                    return self.body.decode("utf-8", "replace"), "text"
        return base64.b64encode(self.body).decode(), "base64"

    def result(self, seconds: float, *, storable: bool = False) -> Result:
        """The node's result, after a call that took this long. `storable` replaces the character
        that PostgreSQL cannot store.
        """
        text, encoding = self.text()
        if storable:
            text = text.replace("\0", "\ufffd")
        found = {
            "status": self.status,
            "body": text,
            "encoding": encoding,
            "headers": dict(self.headers),
            "ok": 200 <= self.status < 300,
            "duration_ms": round(seconds * 1000),
        }
        return Result.of(found | {"truncated": True} if self.truncated else found)
