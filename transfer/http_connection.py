"""One kept-alive connection that reads byte ranges into memory the caller owns.

`http.client` reads a body straight into a preallocated buffer, at a fourteenth of the processor
time the Azure SDK takes with its defaults. Only what a ranged GET of a blob needs is here. What is
raised names the host, never the path or the query: the query is the grant.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from dataclasses import dataclass
from email.message import Message
from urllib.parse import SplitResult, urlsplit

_MOST_ERROR_BYTES = 64 * 1024
"""Of an error's body, read so that the connection can be kept; a longer one is not worth it."""

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a ranged GET.

    Attributes:
        status: Of HTTP.
        headers: As sent.
        received: Bytes put into the caller's memory.
    """

    status: int
    headers: Message
    received: int


class RangeConnection:
    """A connection to one host; not for several threads at once.

    Args:
        address: Scheme, host and port; `split_address` makes it.
        context: Of TLS; None for plain HTTP.
        timeout: Seconds for connecting and for each wait for bytes.
        proxy: `host:port` of an HTTP proxy that tunnels, or None.
    """

    def __init__(
        self,
        address: SplitResult,
        context: ssl.SSLContext | None,
        timeout: float,
        proxy: str | None,
    ) -> None:
        self.origin = origin(address)
        _, host, port = self.origin
        via, via_port = (host, port) if proxy is None else _host_and_port(proxy)
        if context is None:
            self._connection = http.client.HTTPConnection(via, via_port, timeout=timeout)
        else:
            self._connection = http.client.HTTPSConnection(
                via, via_port, timeout=timeout, context=context
            )
        if proxy is not None:
            self._connection.set_tunnel(host, port)

    def get(self, target: str, headers: dict[str, str], view: memoryview) -> Answer:
        """Ask for a range and read the body of a 206 into `view`.

        Args:
            target: Path and query.
            headers: To send.
            view: As long as the range.

        Raises:
            OSError, http.client.HTTPException: As the standard library does; the caller must not
                show their text, which may hold the target.
        """
        self._connection.request("GET", target, headers=headers)
        response = self._connection.getresponse()
        received = 0
        if response.status == http.client.PARTIAL_CONTENT and _length(response) == len(view):
            while received < len(view):
                count = response.readinto(view[received:])
                if not count:
                    break
                received += count
        if response.status != http.client.PARTIAL_CONTENT:
            response.read(_MOST_ERROR_BYTES)
        if not response.isclosed() or response.will_close or received < len(view):
            self.close()
        return Answer(response.status, response.headers, received)

    def abort(self) -> None:
        """End a `get` that another thread waits in."""
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next `get` opens it again."""
        self._connection.close()


def split_address(url: str) -> SplitResult:
    """The parts of an address of the kinds that are spoken here.

    Raises:
        ValueError: If it is no HTTP or HTTPS address; the message does not repeat it.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("the source's address must begin with https:// (or http://) and a host")
    return parts


def origin(address: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what a connection is to."""
    return address.scheme, address.hostname or "", address.port or _PORTS[address.scheme]


def request_target(address: SplitResult) -> str:
    """Path and query, as the request line has them."""
    query = f"?{address.query}" if address.query else ""
    return (address.path or "/") + query


def describe(error: Exception) -> str:
    """What went wrong, without the error's own text, which may hold the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return type(error).__name__


def _length(response: http.client.HTTPResponse) -> int:
    return int(response.headers.get("Content-Length") or -1)


def _host_and_port(proxy: str) -> tuple[str, int]:
    host, _, port = proxy.rpartition(":")
    return host, int(port)
