"""Signatures of pushes: what is verified becomes a request, and keys that cannot be read refuse
nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pgflows.errors import ServiceUnavailable, SignatureRefused
from pgflows.ledger.ledger import Ledger
from pgflows.ledger.signing import Push, Signatures
from tests.ledger.conftest import Books, as_request


async def signed(books: Books) -> Push:
    """The push of a fresh run."""
    return (await books.pushes(await books.start()))[0]


def unknown(push: Push, n: int) -> Push:
    """The push, signed with a key that does not exist."""
    return replace(push, signature=f"v1.{n:012x}.{'0' * 64}")


async def test_signatures_turn_a_verified_push_into_its_request(
    books: Books, ledger: Ledger
) -> None:
    push = await signed(books)
    assert await Signatures(ledger.read_keys).verify(push) == as_request(push)


async def test_signatures_find_a_key_made_after_the_last_read(books: Books, ledger: Ledger) -> None:
    signatures = Signatures(ledger.read_keys)
    before = await signed(books)
    await signatures.verify(before)
    await books.owner.execute("select pgflows.rotate_key()")
    after = await signed(books)
    assert after.signature.split(".")[1] != before.signature.split(".")[1]
    for push in (after, before):
        await signatures.verify(push)
        with pytest.raises(SignatureRefused, match="does not fit"):
            await signatures.verify(replace(push, body=push.body + b" "))


async def test_signatures_read_keys_at_most_once_a_second(books: Books, ledger: Ledger) -> None:
    reads = 0

    async def counted() -> Mapping[str, bytes]:
        nonlocal reads
        reads += 1
        return await ledger.read_keys()

    signatures = Signatures(counted)
    push = await signed(books)
    await signatures.verify(push)
    refused = await asyncio.gather(
        *(signatures.verify(unknown(push, n)) for n in range(50)), return_exceptions=True
    )
    assert all(isinstance(r, SignatureRefused) for r in refused)
    assert reads == 2


async def test_signatures_refuse_nobody_while_keys_cannot_be_read(
    books: Books, ledger: Ledger
) -> None:
    failures = [ServiceUnavailable("one"), ServiceUnavailable("two")]

    async def read() -> Mapping[str, bytes]:
        await asyncio.sleep(0)
        if failures:
            raise failures.pop()
        return await ledger.read_keys()

    signatures = Signatures(read)
    push = await signed(books)
    answers = await asyncio.gather(
        *(signatures.verify(push) for _ in range(5)), return_exceptions=True
    )
    assert [type(a) for a in answers[:2]] == [ServiceUnavailable] * 2
    assert answers[2:] == [as_request(push)] * 3
