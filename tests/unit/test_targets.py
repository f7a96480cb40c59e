"""Which URLs an HTTP node may call, and which addresses a name may have."""

from __future__ import annotations

import socket

import pytest

from pgflows.engine.targets import GuardedResolver, Targets


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com/v1/orders?x=1",
        "https://API.example.com:443/v1/",
        "http://10.0.0.5:8080/anything",
    ],
)
def test_below_a_listed_prefix_is_allowed(url: str) -> None:
    assert Targets(["https://api.example.com/v1", "http://10.0.0.5:8080"]).is_listed(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v10",
        "https://api.example.com/",
        "http://api.example.com/v1",
        "https://api.example.com:444/v1",
        "https://api.example.com.evil.org/v1",
        "https://api.example.com@evil.org/v1",
        "https://user@api.example.com/v1",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1/..%2fadmin",
        "https://api.example.com:x/v1",
        "https://[/v1",
        "ftp://api.example.com/v1",
        "",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    assert not Targets(["https://api.example.com/v1"]).is_listed(url)


def test_a_registered_base_url_is_a_step_service() -> None:
    targets = Targets([])
    assert not targets.is_step("http://app:8000/steps/charge")
    targets.register(["http://app:8000"])
    assert targets.is_step("http://app:8000/steps/charge")
    assert not targets.is_step("http://app:8001/steps/charge")


async def test_a_name_must_not_resolve_to_this_machine() -> None:
    resolver = GuardedResolver(Targets(["http://localhost.localdomain/"]))
    name = socket.gethostname()
    try:
        with pytest.raises(OSError, match="not public"):
            await resolver.resolve(name, 80)
    finally:
        await resolver.close()


async def test_a_name_that_was_listed_as_private_may() -> None:
    name = socket.gethostname()
    resolver = GuardedResolver(Targets([f"private:http://{name}/"]))
    try:
        assert await resolver.resolve(name, 80)
    finally:
        await resolver.close()
