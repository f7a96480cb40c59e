"""Every kind of literal, through the compiler, a real run on the engine, and back."""

from __future__ import annotations

import ast
import inspect
import socket
from typing import Any

from pgflows.client import Client
from pgflows.http.app import create_app
from tests.http import literal_flow
from tests.http.conftest import listening, settings_for


def written() -> dict[str, Any]:
    """The literals of the workflow, as Python reads them."""
    tree = ast.parse(inspect.getsource(literal_flow))
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Literals"
    )
    return {k.arg or "": ast.literal_eval(k.value) for k in call.keywords}


async def test_every_literal_comes_back(database: Any) -> None:
    want = written()
    assert set(want["controls"] + want["ascii"] + want["latin"]) == set(map(chr, range(1, 256)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = settings_for(base_url=url, run_dsn=database.run_dsn)
        fastapi = create_app(literal_flow.app, settings, dsn=database.dsn, with_engine=True)
        async with listening(fastapi, listener), Client(url) as client:
            run = await client.start("literals", {}, label="{sys_instance_id} $e 'x'", wait=20)
    assert run.status == "completed"
    assert run.output == want
