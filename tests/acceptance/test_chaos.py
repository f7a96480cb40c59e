"""A short cut of `make chaos`; the seed is in the output of a failure."""

from __future__ import annotations

import argparse
import random

import pytest

from tests.chaos.chaos import run


@pytest.mark.slow
async def test_faults_of_all_kinds_for_a_few_seconds() -> None:
    seed = random.randrange(10**6)  # noqa: S311 - any will do
    print(f"repeat with: make chaos ARGS='--seconds 8 --runs 150 --every 1 --seed {seed}'")  # noqa: T201
    options = argparse.Namespace(seconds=8, runs=150, every=1.0, seed=seed, recovery=15.0)
    books = await run(options)
    assert books.problems == []
    assert len(books.started) + books.orders > 50
