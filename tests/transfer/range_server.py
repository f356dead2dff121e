"""A small HTTPS server that serves byte ranges as a blob store does, and misbehaves to order.

Faults are queued by name; each request takes one. Every request must bear the grant of the day.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class RangeServer(ThreadingHTTPServer):
    """Serves `content` at any path.

    Attributes:
        faults: `429`, `500`, `503`, `404`, `200`, `drop`, `reset`, `short`, `hang`, `other-range`;
            one per request until it is empty. `429` asks for `retry_after` seconds.
        grant: What `sig=` in the query must be.
        claimed_size: Said in `Content-Range`.
        seen: (path with query, headers) of each request.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.claimed_size = len(content)
        self.faults: deque[str] = deque()
        self.grant = "first"
        self.retry_after = "0"
        self.etag = '"0x1"'
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.connections: set[Any] = set()
        self.released = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self.server.connections.add(self.client_address)
        if f"sig={self.server.grant}" not in self.path:
            self._say(403, {"x-ms-error-code": "AuthenticationFailed"}, b"no")
            return
        try:
            fault = self.server.faults.popleft()
        except IndexError:
            fault = ""
        if fault.isdigit() and fault != "200":
            headers = {"Retry-After": self.server.retry_after} if fault == "429" else {}
            self._say(int(fault), headers, b"later")
            return
        self._serve(fault)

    def _serve(self, fault: str) -> None:
        found = _RANGE.fullmatch(self.headers["x-ms-range"])
        assert found
        first, last = int(found[1]), int(found[2])
        if fault == "other-range":
            first, last = first + 1, last + 1
        body = self.server.content[first : last + 1]
        if first >= len(self.server.content):
            self._say(416, {}, b"")
            return
        if fault == "short":
            body = body[: len(body) // 2]
        headers = {"Content-Range": f"bytes {first}-{last}/{self.server.claimed_size}"}
        if fault == "hang":
            self.server.released.wait(30)
        if fault == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._say(200 if fault == "200" else 206, headers, body, cut=fault == "drop")

    def _say(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "ETag": self.server.etag}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Tests look at `seen` instead."""


@contextmanager
def serving(content: bytes, directory: Path) -> Iterator[tuple[RangeServer, str, Path]]:
    """A running server, its address without a grant, and the certificate to trust."""
    authority = trustme.CA()
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server = RangeServer(content)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server, f"https://localhost:{server.server_port}/container/disk-1", ca_file
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def tunnelling() -> Iterator[tuple[str, list[str]]]:
    """A proxy for one connection: its `host:port`, and the request lines it saw."""
    asked = list[str]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_tunnel, args=(listener, asked), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
    thread.join(10)


def _tunnel(listener: socket.socket, asked: list[str]) -> None:
    client, _ = listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += client.recv(4096)
    asked.append(request.split(b"\r\n")[0].decode())
    host, port = asked[0].split()[1].split(":")
    server = socket.create_connection((host, int(port)))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server)
    back.join(10)
    client.close()
    server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # the other side has gone
        while chunk := source.recv(1024 * 1024):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
