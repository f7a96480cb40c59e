"""The HTTP peer that the cases of the corpus call: each path has a fixed answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

TEXT = "héllo ☃ $r1 {x} 'quote' \\ \"double\""


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


FIXED = {
    "text": Answer(TEXT.encode(), "text/plain; charset=utf-8"),
    "latin": Answer("café".encode("latin-1"), "text/plain; charset=iso-8859-1"),
    "bytes": Answer(bytes(range(256)), "application/octet-stream"),
    "notype": Answer(b"plain", ""),
    "empty": Answer(status=204),
    "array": Answer(b'[1, 2, {"a": null}]'),
    "redirect": Answer(status=302, headers={"Location": "/echo"}),
    "headers": Answer(b"{}", headers={"X-One": "1", "X-Two": "two", "Set-Cookie": "a=b"}),
}


class Peer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        answer = self._find(self.rfile.read(length))
        self.send_response(answer.status)
        with_body = answer.status != 204
        if answer.type and with_body:
            self.send_header("Content-Type", answer.type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if with_body:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def _find(self, body: bytes) -> Answer:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case [name] if name in FIXED:
                return FIXED[name]
            case ["echo"]:
                return self._echo(body)
            case ["status", code]:
                return Answer(_json({"code": int(code)}), status=int(code))
            case ["slow"]:
                time.sleep(float(parse_qs(url.query).get("s", ["2"])[0]))
                return Answer(b'{"slow": true}')
            case ["multipart"]:
                return self._parts(body)
        return Answer(_json({"detail": "no such path"}), status=404)

    def _echo(self, body: bytes) -> Answer:
        kept = {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith("x-") or name.lower() in ("content-type", "authorization")
        }
        text = body.decode("utf-8", "replace")
        return Answer(
            _json({"method": self.command, "path": self.path, "headers": kept, "body": text})
        )

    def _parts(self, body: bytes) -> Answer:
        kind, _, boundary = self.headers.get("content-type", "").partition("boundary=")
        parts = []
        for piece in body.split(b"--" + boundary.encode()):
            if not piece.strip(b"-\r\n"):
                continue
            head, _, data = piece.strip(b"\r\n").partition(b"\r\n\r\n")
            parts.append({"head": sorted(head.decode().split("\r\n")), "hex": data.hex()})
        return Answer(_json({"type": kind.partition(";")[0], "parts": parts}))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Peer, f"do_{_method}", Peer._answer)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving() -> Iterator[str]:
    """The peer on a port of its own; gives its base URL."""
    with _Server(("127.0.0.1", 0), Peer) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
