"""A small HTTP/1.1 server: a thread per connection, keep-alive, optional TLS, bodies in pieces.

Ours because an emulator has to do what servers avoid: hang up at a chosen moment, promise more
bytes than it sends, and stream gigabytes through TLS from a Python process that has other things
to do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import IO, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 300.0  # how long a kept connection may be silent
MAX_BODY = 64 * 1024 * 1024  # bytes; far above any request that the emulated APIs know
# Below the range that clients' own ends of connections come from: while an emulator is down, a
# client that retries could otherwise be given the emulator's port and connect to itself.
PORTS = range(20_000, 32_000)
BIND_SECONDS = 5.0
MAX_LINE = 65536  # bytes; signed poll URLs make request lines long


class DropConnection(Exception):
    """Raised by a handler to hang up without an answer."""


@dataclass(frozen=True)
class Request:
    """One request. Header and query names are in lower case; the path is decoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object. Raises ValueError."""
        parsed = json.loads(self.body) if self.body.strip() else {}
        if not isinstance(parsed, dict):
            raise ValueError("the body is not a JSON object")
        return parsed


@dataclass(frozen=True)
class Response:
    """One answer. ``stream`` yields a body too large to hold; ``length`` is what is promised."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterable[memoryview] | None = None
    length: int | None = None
    close: bool = False


def json_response(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return Response(
        status,
        {"Content-Type": "application/json; charset=utf-8", **(headers or {})},
        json.dumps(body).encode(),
    )


class Server:
    """Listens on loopback and hands each request to ``handler`` in the connection's own thread."""

    def __init__(
        self,
        port: int,
        handler: Callable[[Request], Response],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Bind ``port`` (0: any free one). ``context`` makes the server speak TLS."""
        self._handler = handler
        self._context = context
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]

    def start(self) -> None:
        """Accept connections in a thread until the process ends or :meth:`close` is called."""
        threading.Thread(target=self._accept, name=f"http-{self.port}", daemon=True).start()

    def close(self) -> None:
        """Stop accepting. Connections that are open stay until their client leaves."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                connection.settimeout(HANDSHAKE_SECONDS)
                connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(IDLE_SECONDS)
            with connection.makefile("rb", 65536) as reader:
                while self._serve_one(connection, cast(IO[bytes], reader)):
                    pass
        except (DropConnection, OSError, ValueError):
            pass  # the client left, spoke nonsense, or chaos hung up on it
        except Exception:
            _log.exception("a connection ended in an unexpected error")
        finally:
            connection.close()

    def _serve_one(self, connection: socket.socket, reader: IO[bytes]) -> bool:
        request = _read_request(connection, reader)
        if request is None:
            return False
        response = self._handler(request)
        _send(connection, request, response)
        return not response.close and request.headers.get("connection", "").lower() != "close"


def _listen(port: int) -> socket.socket:
    """Listen on ``port``, or on a free one of :data:`PORTS`; a taken port may become free."""
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        wanted = port or random.choice(PORTS)
        try:
            return socket.create_server(("127.0.0.1", wanted), backlog=128)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _read_request(connection: socket.socket, reader: IO[bytes]) -> Request | None:
    line = reader.readline(MAX_LINE)
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline(MAX_LINE)).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY:
        raise ValueError(f"a body of {length} bytes is too large")
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = reader.read(length) if length else b""
    if len(body) < length:
        return None
    parts = urlsplit(target)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = {name.lower(): value for name, value in pairs}
    return Request(method.upper(), unquote(parts.path), query, headers, body, target)


def _send(connection: socket.socket, request: Request, response: Response) -> None:
    length = response.length if response.length is not None else len(response.body)
    reason = HTTPStatus(response.status).phrase
    lines = [f"HTTP/1.1 {response.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if response.status not in (204, 304):
        lines.append(f"Content-Length: {length}")
    if response.close:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if request.method == "HEAD" or response.status in (204, 304):
        connection.sendall(head)
        return
    connection.sendall(head + response.body)
    for piece in response.stream or ():
        connection.sendall(piece)
