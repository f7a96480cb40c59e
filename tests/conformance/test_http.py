"""HTTP and HTTP_MULTIPART against a small server: what is sent, what comes back, what fails."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pgflows.database.connections import Connection
from tests.conformance.conftest import NOWHERE, Stage
from tests.conformance.stage import play

KEYS = {"status", "body", "encoding", "headers", "ok", "duration_ms"}


def multipart(peer: str, parts: list[dict[str, str]], rest: str = "") -> str:
    return f"df.http_multipart('{peer}/multipart', 'POST', $j${json.dumps(parts)}$j$::jsonb{rest})"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def echoed(conn: Connection, call: str) -> dict[str, Any]:
    answer = (await play(conn, call)).value
    assert set(answer) == KEYS
    found: dict[str, Any] = json.loads(answer["body"])
    return found


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "post"])
async def test_method_and_body_arrive(actor: Connection, stage: Stage, method: str) -> None:
    body = "null" if method in ("GET", "DELETE") else "'it''s ☃'"
    heard = await echoed(actor, f"df.http('{stage.peer}/echo?a=1', '{method}', {body})")
    assert (heard["method"], heard["path"]) == (method.upper(), "/echo?a=1")
    assert heard["body"] == ("" if body == "null" else "it's ☃")


async def test_headers_arrive(actor: Connection, stage: Stage) -> None:
    headers = """'{"X-A": "1", "Authorization": "Bearer t", "Content-Type": "text/x"}'"""
    heard = await echoed(actor, f"df.http('{stage.peer}/echo', 'POST', 'b', {headers})")
    assert heard["headers"] == {"x-a": "1", "authorization": "Bearer t", "content-type": "text/x"}


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (202, True), (299, True), (401, False), (499, False)]
)
async def test_these_answers_complete_the_node(
    actor: Connection,
    stage: Stage,
    status: int,
    ok: bool,
) -> None:
    played = await play(actor, f"df.http('{stage.peer}/status/{status}')")
    assert (played.value["status"], played.value["ok"]) == (status, ok)


@pytest.mark.parametrize("status", [500, 502, 599])
async def test_these_fail_the_instance(actor: Connection, stage: Stage, status: int) -> None:
    url = f"{stage.peer}/status/{status}"
    played = await play(actor, f"df.seq(df.http('{url}'), 'select 1')")
    assert played.error.startswith(f"HTTP POST {url} returned {status}: ")
    assert json.loads(played.node("HTTP")["result"]) == played.error
    assert played.seen["select 1"] == "skipped"


async def test_nobody_there_and_too_slow_fail(actor: Connection, stage: Stage) -> None:
    played = await play(actor, f"df.http('{NOWHERE}/x')")
    assert played.error.startswith(f"HTTP connection failed: {NOWHERE}/x - ")
    played = await play(actor, f"df.http('{stage.peer}/slow?s=3', 'GET', timeout_seconds => 1)")
    assert f"{stage.peer}/slow?s=3" in played.error


async def test_text_is_text_and_bytes_are_base64(actor: Connection, stage: Stage) -> None:
    text = (await play(actor, f"df.http('{stage.peer}/array', 'GET')")).value
    assert (text["encoding"], text["body"]) == ("text", '[1, 2, {"a": null}]')
    data = (await play(actor, f"df.http('{stage.peer}/bytes', 'GET')")).value
    assert data["encoding"] == "base64"
    assert base64.b64decode(data["body"]) == bytes(range(256))
    assert data["headers"]["content-type"] == "application/octet-stream"


async def test_a_key_that_an_answer_lacks(actor: Connection, stage: Stage) -> None:
    get = f"df.as(df.http('{stage.peer}/array', 'GET'), 'r')"
    text = "'select ''$r.nope?'' as a, ''$r.nope'' as b'"
    assert (await play(actor, f"df.seq({get}, {text})")).rows == [{"a": "$r.nope?", "b": "$r.nope"}]
    send = f"df.http('{stage.peer}/echo', 'POST', '{{}}')"
    assert (await echoed(actor, f"df.seq({get}, {send.format('$r.nope?')})"))["body"] == "$r.nope?"
    played = await play(actor, f"df.seq({get}, {send.format('$r.nope')})")
    assert "$r.nope: result has no field 'nope'" in played.error


async def test_the_answer_can_be_captured_and_tested(actor: Connection, stage: Stage) -> None:
    flow = f"""df.seq(df.as(df.http('{stage.peer}/status/404', 'GET'), 'r'),
      df.if('select $r.ok', 'select 0', 'select $r.status as s,
        $r.body::jsonb ->> ''code'' as c, $r.headers::jsonb ? ''date'' as h'))"""
    assert (await play(actor, flow)).rows == [{"s": 404, "c": "404", "h": True}]


async def test_a_url_made_of_variables_is_checked_when_it_is_known(
    actor: Connection, stage: Stage
) -> None:
    await actor.fetchval("select df.setvar('base', $1)", stage.peer)
    heard = await echoed(actor, "df.http('{base}/echo?{sys_label}{none}', 'GET')")
    assert heard["path"].startswith("/echo?")
    await actor.fetchval("select df.setvar('base', 'ftp://h')")
    played = await play(actor, "df.http('{base}/echo')")
    await actor.fetchval("select df.clearvars()")
    assert "ftp" in played.error


async def test_parts_arrive(actor: Connection, stage: Stage) -> None:
    parts = [
        {"name": "plain", "data_b64": encoded(b"text")},
        {
            "name": "file",
            "filename": "a b.bin",
            "content_type": "x/y",
            "data_b64": encoded(b"\0\xff\r\n"),
        },
    ]
    heard = await echoed(actor, multipart(stage.peer, parts))
    assert heard["type"] == "multipart/form-data"
    assert bytes.fromhex(heard["parts"][0]["hex"]) == b"text"
    assert heard["parts"][1]["hex"].startswith("00ff")
    head = " ".join(heard["parts"][1]["head"])
    assert 'name="file"' in head
    assert 'filename="a b.bin"' in head
    assert "x/y" in head


async def test_a_downloaded_body_is_a_part_and_wrapped_lines_are_fine(
    actor: Connection, stage: Stage
) -> None:
    call = multipart(stage.peer, [{"name": "n", "filename": "$r.status", "data_b64": "$r.body"}])
    heard = await echoed(actor, f"df.seq(df.as(df.http('{stage.peer}/bytes', 'GET'), 'r'), {call})")
    assert heard["parts"][0]["hex"].startswith(bytes(range(10)).hex())
    assert 'filename="200"' in " ".join(heard["parts"][0]["head"])
    wrapped = base64.encodebytes(b"x" * 200).decode()
    heard = await echoed(actor, multipart(stage.peer, [{"name": "n", "data_b64": wrapped}]))
    assert bytes.fromhex(heard["parts"][0]["hex"]) == b"x" * 200


@pytest.mark.parametrize("data", ["a$r.body", "$r.body=", "{v}x$r.body", "?"])
async def test_a_part_is_one_whole_value(actor: Connection, stage: Stage, data: str) -> None:
    call = multipart(stage.peer, [{"name": "n", "data_b64": data}])
    played = await play(actor, f"df.seq(df.as(df.http('{stage.peer}/bytes', 'GET'), 'r'), {call})")
    assert played.status == "failed"
    assert played.node("HTTP_MULTIPART")["status"] == "failed"


async def test_calls_side_by_side(actor: Connection, stage: Stage) -> None:
    call = f"df.http('{stage.peer}/status/{{}}', 'GET')"
    played = await play(actor, f"df.join3({', '.join(call.format(s) for s in (200, 404, 201))})")
    assert [arm["status"] for arm in played.value] == [200, 404, 201]
    played = await play(actor, f"df.race({call.format(200)}, df.sleep(600))")
    assert played.value["status"] == 200
