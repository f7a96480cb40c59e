"""API keys as the service holds them: hashed when it starts, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256


class ApiKeys:
    """The hashes of the keys that open the control API."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def accept(self, key: str) -> bool:
        """Whether this is one of them; takes as long for every key."""
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._hashes) > 0
