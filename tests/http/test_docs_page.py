"""The page of the API: all of it comes from the service itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx

from tests.http.conftest import Serve


class Addresses(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_docs_page_loads_nothing_from_another_server(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    parser = Addresses()
    parser.feed(page.text)
    assert not re.search(r"//[a-z0-9.-]+\.[a-z]{2,}", page.text)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert len(parser.found) == 3
    for address in [*parser.found, *re.findall(r"url: '([^']+)'", page.text)]:
        loaded = await http.get(str(page.url.join(address)))
        assert loaded.status_code == 200, address
        assert len(loaded.content) > 1000, address


async def test_the_docs_page_has_the_title_of_the_service(http: httpx.AsyncClient) -> None:
    assert "<title>pgflows</title>" in (await http.get("/docs")).text


async def test_the_docs_page_wants_a_key_where_keys_are_set(serve: Serve) -> None:
    async with serve(api_keys="one") as http:
        for path in ("/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == 401
            found = await http.get(path, headers={"Authorization": "Bearer one"})
            assert found.status_code == 200


async def test_there_is_no_other_page_of_the_framework(http: httpx.AsyncClient) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/files/../__init__.py"):
        assert (await http.get(path)).status_code == 404
