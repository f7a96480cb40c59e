"""Which URLs an HTTP node may call, and which addresses a name may have."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import ValidationError

from pgflows.config import Settings
from pgflows.engine.call.targets import GuardedResolver, Targets


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com/v1/orders?x=1",
        "https://API.example.com:443/v1/",
        "https://api.example.com/v1/a..b/...",
        "https://api.example.com/v1?next=/../../x",
        "HTTPS://api.example.com/v1/50%25",
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
        "https://api.example.com/v1/%252e%252e/admin",
        "https://api.example.com/v1/..;/admin",
        "https://api.example.com/v1/..%5cadmin",
        "https://api.example.com/v1/..\\admin",
        "https://api.example.com/v1/%" + "25" * 9 + "2e",
        "https://api.example.com//v1",
        "https://api.example.com/%76%31",
        "https://api.example.com\\@evil.org/v1",
        "https://api.example.com\\.evil.org/v1",
        "https://evil.org#@api.example.com/v1",
        "https://evil.org?@api.example.com/v1",
        "https://@api.example.com/v1",
        "https://api.example.com./v1",
        "https://api.example.com:0/v1",
        "https://api.exam\tple.com/v1",
        "https://api.example.com/v1/\r\nx",
        "https://api.example\u3002com/v1",
        "https://\u24d0pi.example.com/v1",
        "https://api.example.com\u2100/v1",
        "https:///api.example.com/v1",
        "https:api.example.com/v1",
        "//api.example.com/v1",
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


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://10.0.0.5:8081/",
        "http://10.0.0.5/",
    ],
)
def test_an_address_is_reached_only_where_it_is_listed_itself(url: str) -> None:
    listed = Targets(["https://api.example.com", "http://10.0.0.5:8080", "private:http://inner/"])
    assert not listed.is_listed(url)


class Answers(AbstractResolver):
    """A resolver whose names have these addresses, another one each time."""

    def __init__(self, *addresses: str) -> None:
        self.left = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self.left.pop(0)
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104
        "168.63.129.16",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%2",
        "ff02::1",
    ],
)
async def test_a_name_must_not_have_an_address_that_is_not_public(address: str) -> None:
    targets = Targets(["http://name.example/", "private:http://inner.example/"])
    with pytest.raises(OSError, match="not public"):
        await GuardedResolver(targets, Answers(address)).resolve("name.example", 80)
    [found] = await GuardedResolver(targets, Answers(address)).resolve("inner.example", 80)
    assert found["host"] == address


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
async def test_a_public_address_is_left_as_it_is(address: str) -> None:
    targets = Targets(["http://name.example/"])
    [found] = await GuardedResolver(targets, Answers(address)).resolve("name.example", 80)
    assert found["host"] == address


async def test_every_answer_is_judged_anew() -> None:
    both = GuardedResolver(Targets(["http://name.example/"]), Answers("8.8.8.8", "127.0.0.1"))
    assert len(await both.resolve("name.example", 80)) == 1
    with pytest.raises(OSError, match="not public"):
        await both.resolve("name.example", 80)


@pytest.mark.parametrize(
    "entry", ["api.example.com", "ftp://api.example.com", "http://", "http://u@a/", "http://a/?x=1"]
)
def test_a_setting_that_is_no_prefix_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="not a URL prefix"):
        Settings(http_targets=(entry,))


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
