"""A page blob, or anything that serves byte ranges over HTTPS, as a source.

Reads are ranged GETs over a few kept-alive connections. What is temporary (throttling, server
errors, lost connections) is tried again with growing pauses; a refused grant is renewed once; an
answer that does not fit the disk's size stops the round. The address carries the grant and is
never shown.
"""

from __future__ import annotations

import http.client
import random
import re
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult

from models.errors import SourceChanged, SourceDenied, SourceUnavailable, Stopped
from transfer.http_connection import (
    Answer,
    RangeConnection,
    describe,
    origin,
    request_target,
    split_address,
)

HTTP_PIECE_BYTES = 4 * 1024 * 1024
"""Of one request: the most Azure serves at once from a page blob, and cheap per byte."""

API_VERSION = "2023-11-03"
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 409, 410, 412, 416})
_REFUSED = frozenset({401, 403})
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class HttpRangeSource:
    """A disk behind HTTPS.

    Args:
        url: Gives the address with its grant; called with True after the last one was refused.
        size: Bytes of the disk; None asks the server.
        connections: Reads under way at once.
        piece_bytes: Bytes of one request.
        ca_file: Trusted certificates instead of the system's.
        api_version: Sent as `x-ms-version`.
        timeout: Seconds for connecting and for each wait for bytes.
        attempts: Times a read is tried before it counts as unavailable.
        proxy: `host:port` of an HTTP proxy; the environment's is not looked at.

    Raises:
        SourceDenied, SourceUnavailable, SourceChanged: If the size is asked and not given.
    """

    def __init__(
        self,
        url: Callable[[bool], str],
        *,
        size: int | None = None,
        connections: int = 8,
        piece_bytes: int = HTTP_PIECE_BYTES,
        ca_file: str | Path | None = None,
        api_version: str = API_VERSION,
        timeout: float = 60.0,
        attempts: int = 8,
        proxy: str | None = None,
    ) -> None:
        self.parallel_reads = connections
        self.piece_bytes = piece_bytes
        self._url = url
        self._api_version = api_version
        self._timeout = timeout
        self._attempts = attempts
        self._proxy = proxy
        self._context = ssl.create_default_context(cafile=ca_file)
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._idle: list[RangeConnection] = []
        self._busy: set[RangeConnection] = set()
        self._address, self._renewals = split_address(url(False)), 0
        self._etag = ""
        self._served = 0
        self._resume_at = 0.0
        self.size = size if size is not None else self._ask_size()

    def __repr__(self) -> str:
        return f"HttpRangeSource(host={self._address.hostname!r})"

    def read_into(self, offset: int, view: memoryview, stopping: threading.Event) -> None:
        """See `Source.read_into`."""
        tried, renewed, reason = 0, False, ""
        while tried < self._attempts:
            self._pause(stopping)
            with self._lock:
                address, renewals = self._address, self._renewals
            answer, reason = self._ask(address, offset, view)
            if answer is not None and answer.status in _REFUSED:
                if renewed:
                    raise self._denied(answer.status)
                renewed = True
                self._renew_grant(renewals)
            elif answer is not None and self._is_complete(answer, offset, len(view)):
                return
            else:
                tried += 1
                self._slow_down(answer, tried)
        raise SourceUnavailable(
            f"{self._address.hostname} did not serve byte {offset} in {tried} attempts: {reason}.",
            hint="Check the path to it and whether it is throttled; the round then goes on.",
        )

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        with self._lock:
            busy = list(self._busy)
        for connection in busy:
            connection.abort()

    def close(self) -> None:
        """See `Source.close`."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask_size(self) -> int:
        self.size = 0  # taken from the first answer
        self.read_into(0, memoryview(bytearray(1)), threading.Event())
        return self.size

    def _ask(
        self, address: SplitResult, offset: int, view: memoryview
    ) -> tuple[Answer | None, str]:
        """One try: the answer, or None, and in words what may keep it from being complete."""
        wanted = f"bytes={offset}-{offset + len(view) - 1}"
        headers = {"Range": wanted, "x-ms-range": wanted, "x-ms-version": self._api_version}
        connection = self._take(address)
        answer: Answer | None = None
        try:
            answer = connection.get(request_target(address), headers, view)
            reason = f"HTTP {answer.status}, {answer.received} of {len(view)} bytes"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = describe(error)
        with self._lock:
            self._busy.discard(connection)
            if answer is not None:
                self._idle.append(connection)
        if answer is None:
            connection.close()
        return answer, reason

    def _take(self, address: SplitResult) -> RangeConnection:
        """An idle connection to this host, or a new one."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None and connection.origin != origin(address):
            connection.close()  # the renewed grant is for another host
            connection = None
        if connection is None:
            context = self._context if address.scheme == "https" else None
            connection = RangeConnection(address, context, self._timeout, self._proxy)
        with self._lock:
            self._busy.add(connection)
        return connection

    def _is_complete(self, answer: Answer, offset: int, length: int) -> bool:
        """Whether all was received; False asks for another try.

        Raises:
            SourceChanged: If the answer contradicts what is known of the disk.
            SourceUnavailable: If trying again is of no use.
        """
        host = self._address.hostname
        if answer.status == http.client.PARTIAL_CONTENT:
            self._check_range(answer, offset, length)
            return answer.received == length
        if answer.status in _TEMPORARY:
            return False
        if answer.status in _GONE:
            raise SourceChanged(
                f"{host} answers HTTP {answer.status}{_azure_code(answer)} for byte {offset}.",
                hint="The snapshot is gone or smaller; the round needs a new one.",
            )
        raise SourceUnavailable(
            f"{host} answers HTTP {answer.status}{_azure_code(answer)} to a request for a range.",
            hint="It does not serve ranges as a blob does, or a proxy answers in its place.",
        )

    def _check_range(self, answer: Answer, offset: int, length: int) -> None:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        first, last, size = (int(part) for part in found.groups()) if found else (-1, -1, -1)
        with self._lock:
            self.size = self.size or size
            # What is served may be longer than the disk: Azure puts a VHD's footer behind it.
            self._served = self._served or size
            etag = answer.headers.get("ETag", "")
            self._etag = self._etag or etag
            changed = etag != self._etag
        if size < self.size or size != self._served or changed:
            raise SourceChanged(
                f"The disk at {self._address.hostname} was changed while it was read: "
                f"it had {max(self.size, self._served)} bytes, now {size}.",
                hint="A round must read a snapshot, not a disk in use.",
            )
        served = int(answer.headers.get("Content-Length") or -1)
        if (first, last, served) != (offset, offset + length - 1, length):
            raise SourceChanged(
                f"{self._address.hostname} served {served} bytes from byte {first} "
                f"instead of {length} from {offset}.",
                hint="The round stopped; nothing of that answer was used.",
            )

    def _renew_grant(self, renewals: int) -> None:
        """Have the grant renewed, unless another thread has done so since."""
        with self._renewing:
            if self._renewals == renewals:
                address = split_address(self._url(True))
                with self._lock:
                    self._address = address
                    self._renewals += 1

    def _denied(self, status: int) -> SourceDenied:
        return SourceDenied(
            f"{self._address.hostname} refuses the grant (HTTP {status}), also after its renewal.",
            hint="Check the identity's right to grant access to the snapshot, and the clocks.",
        )

    def _slow_down(self, answer: Answer | None, tried: int) -> None:
        """Hold all connections back: what is throttled is the account or the disk."""
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (tried - 1))
        pause *= random.uniform(0.5, 1.0)
        if answer is None and tried == 1:
            pause = 0.0  # an idle connection that the server had closed
        elif answer is not None and answer.headers.get("Retry-After", "").isdigit():
            pause = float(answer.headers["Retry-After"])
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + pause)

    def _pause(self, stopping: threading.Event) -> None:
        pause = self._resume_at - time.monotonic()
        if stopping.wait(pause) if pause > 0 else stopping.is_set():
            raise Stopped("The copy was told to stop.")


def _azure_code(answer: Answer) -> str:
    code = answer.headers.get("x-ms-error-code", "")
    return f" ({code})" if code.isalnum() else ""
