"""The host's front doors: WS-Man over HTTPS and HTTP with NTLM, and the lab's own admin door.

NTLM, its session keys and the encryption of messages over plain HTTP are pyspnego's, so that they
are nobody's own invention. As in WinRM authentication belongs to the connection, and a connection
without TLS carries only encrypted messages.
"""

import base64
import binascii
import json
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import spnego
from spnego.exceptions import SpnegoError

from lab.hyperv import soap
from lab.hyperv.shells import DropConnection, Shells
from lab.hyperv.soap import Fault

_log = logging.getLogger(__name__)

MAXIMUM_ENVELOPE = 512_000
"""Bytes of a request: WinRM's own default limit is 500 kB."""
_PROTOCOL = "application/HTTP-SPNEGO-session-encrypted"
_BOUNDARY = "Encrypted Boundary"
_USER_FILE_VARIABLE = "NTLM_USER_FILE"


def set_user(file: Path, user: str, password: str) -> None:
    """Tells pyspnego's NTLM acceptor the one account of the host."""
    domain, _, name = user.rpartition("\\")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as users:
        users.write(f"{domain}:{name}:{password}\n")
    os.environ[_USER_FILE_VARIABLE] = str(file)


class Server(ThreadingHTTPServer):
    """A threaded HTTP server on loopback, with TLS if a context is given."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, port: int, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None
    ) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            # The handshake happens with the first read, in the connection's own thread.
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection broke", exc_info=True)

    def run(self) -> None:
        """Serves in a thread of its own."""
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


def wsman_handler(shells: Shells, *, encrypted: bool) -> type[BaseHTTPRequestHandler]:
    """The handler class of a WS-Man listener; `encrypted` means message encryption is required."""

    class Handler(_WsmanHandler):
        _shells = shells
        _encrypted = encrypted

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Microsoft-HTTPAPI/2.0"
    sys_version = ""
    # One packet per answer: headers and body leave together.
    wbufsize = -1
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAXIMUM_ENVELOPE * 2:
            self.close_connection = True
            return b""
        return self.rfile.read(length)

    def _reply(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class _WsmanHandler(_Handler):
    _shells: Shells
    _encrypted: bool

    def setup(self) -> None:
        super().setup()
        self._context: Any = None
        self._authenticated = False

    def do_POST(self) -> None:
        content = self._body()
        if not self._authenticate():
            return
        if not content:
            self._reply(200, b"", [])
            return
        wrapped = _PROTOCOL in self.headers.get("Content-Type", "")
        try:
            if wrapped:
                content = self._unwrap(content)
            elif self._encrypted:
                # AllowUnencrypted is false on every WinRM that has not been weakened.
                self._refuse()
                return
            status, reply = self._answer(content)
        except DropConnection:
            self.close_connection = True
            self.connection.close()
            return
        if wrapped:
            kind = f'multipart/encrypted;protocol="{_PROTOCOL}";boundary="{_BOUNDARY}"'
            self._reply(status, self._wrap(reply), [("Content-Type", kind)])
        else:
            kind = "application/soap+xml;charset=UTF-8"
            self._reply(status, reply, [("Content-Type", kind)])

    def _answer(self, content: bytes) -> tuple[int, bytes]:
        message_id = ""
        try:
            request = soap.parse_request(content)
            message_id = request.message_id
            return 200, self._shells.answer(request, str(self._context.client_principal))
        except Fault as error:
            return 500, soap.fault(error, message_id)

    def _authenticate(self) -> bool:
        """Whether the connection is somebody's; answers 401 with the next token if not yet."""
        header = self.headers.get("Authorization")
        if header is None:
            if not self._authenticated:
                self._refuse()
            return self._authenticated
        scheme, _, words = header.partition(" ")
        if scheme.lower() not in ("negotiate", "ntlm"):
            self._refuse()
            return False
        try:
            token = base64.b64decode(words, validate=True)
            if self._context is None or self._authenticated:
                self._authenticated = False
                self._context = spnego.server(
                    protocol="negotiate", options=spnego.NegotiateOptions.use_ntlm
                )
            answer = self._context.step(token)
        except (SpnegoError, binascii.Error, ValueError) as error:
            _log.info("refused a client: %s", error)
            self._context = None
            self._refuse()
            return False
        if self._context.complete:
            self._authenticated = True
            return True
        words = base64.b64encode(answer or b"").decode()
        self._reply(401, b"", [("WWW-Authenticate", f"{scheme} {words}")])
        return False

    def _refuse(self) -> None:
        challenges = [("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "NTLM")]
        self._reply(401, b"", challenges)

    def _unwrap(self, content: bytes) -> bytes:
        parts = content.split(f"--{_BOUNDARY}".encode())
        payload = parts[2].split(b"application/octet-stream\r\n", 1)[1]
        size = int.from_bytes(payload[:4], "little")
        # The boundary may occur inside the ciphertext: everything up to the last one belongs to it.
        rest = f"--{_BOUNDARY}".encode().join([payload, *parts[3:-1]])
        message: bytes = self._context.unwrap_winrm(rest[4 : 4 + size], rest[4 + size :])
        return message

    def _wrap(self, reply: bytes) -> bytes:
        wrapped = self._context.wrap_winrm(reply)
        header, data = wrapped.header, wrapped.data
        length = len(reply) + wrapped.padding_length
        return b"".join(
            (
                f"--{_BOUNDARY}\r\n\tContent-Type: {_PROTOCOL}\r\n".encode(),
                "\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length="
                f"{length}\r\n--{_BOUNDARY}\r\n".encode(),
                b"\tContent-Type: application/octet-stream\r\n",
                len(header).to_bytes(4, "little"),
                header,
                data,
                f"--{_BOUNDARY}--\r\n".encode(),
            )
        )


def admin_handler(
    state: Callable[[], dict[str, Any]], change_guest: Callable[[str, dict[str, Any]], bool]
) -> type[BaseHTTPRequestHandler]:
    """The handler class of the lab's own door: ``GET /lab/state``, ``POST /lab/guests/NAME``."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            if self.path != "/lab/state":
                self._reply(404, b"", [])
                return
            body = json.dumps(state(), default=str, indent=1).encode()
            self._reply(200, body, [("Content-Type", "application/json")])

        def do_POST(self) -> None:
            match = re.fullmatch(r"/lab/guests/([^/]+)", self.path)
            settings = json.loads(self._body() or b"{}")
            found = match is not None and change_guest(match[1], settings)
            self._reply(204 if found else 404, b"", [])

    return Handler
