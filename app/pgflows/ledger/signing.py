"""Signatures of pushes: what PostgreSQL signed becomes a request, everything else is refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pgflows.errors import SignatureRefused
from pgflows.ledger.request import SignedRun, StepRequest

REFRESH_SECONDS = 1.0  # between two reads of the keys
LONGEST_SEQ = 9  # digits


@dataclass(frozen=True, slots=True)
class Push:
    """A request for a step as it came: values of headers, and the raw body."""

    df_id: str
    step: str
    step_key: str
    seq: str
    signature: str
    body: bytes


class Signatures:
    """Checks signatures with the keys that `read_keys` returns."""

    def __init__(self, read_keys: Callable[[], Awaitable[Mapping[str, bytes]]]) -> None:
        self._read_keys = read_keys
        self._keys: Mapping[str, bytes] = {}
        self._read_at = -REFRESH_SECONDS
        self._reading = asyncio.Lock()

    async def verify(self, push: Push) -> StepRequest:
        """The request that PostgreSQL signed. Raises SignatureRefused for any other."""
        version, _, rest = push.signature.partition(".")
        key_id, _, given = rest.partition(".")
        if version != "v1" or not key_id or not given:
            raise SignatureRefused("the request is not signed", reason="unsigned")
        if not push.seq.isascii() or not push.seq.isdigit() or len(push.seq) > LONGEST_SEQ:
            raise SignatureRefused("the seq of the call is malformed", reason="tampered")
        secret = self._keys.get(key_id) or await self._read_key(key_id)
        if secret is None:
            raise SignatureRefused(f"the signing key {key_id!r} is unknown", reason="unknown-key")
        digest = hashlib.sha256(push.body).hexdigest()
        text = f"v1.{key_id}.{push.df_id}.{push.step}.{push.step_key}.{push.seq}.{digest}"
        expected = hmac.digest(secret, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise SignatureRefused("the signature does not fit the request", reason="tampered")
        run = SignedRun(push.df_id, key_id)
        return StepRequest(run, push.step_key, push.step, int(push.seq), push.body)

    async def _read_key(self, key_id: str) -> bytes | None:
        """Reads the keys again: an unknown id may be a new key. They are read at most once a
        second, and whoever comes too early waits: a refusal could hit the first calls after a
        rotation. None means that the keys were read and this one is not among them.
        """
        arrived = time.monotonic()
        async with self._reading:
            if key_id not in self._keys and self._read_at <= arrived:
                due = self._read_at + REFRESH_SECONDS
                await asyncio.sleep(max(due - time.monotonic(), 0))
                began = time.monotonic()
                self._keys = await self._read_keys()
                self._read_at = began  # a read that failed has told nobody anything
            return self._keys.get(key_id)
