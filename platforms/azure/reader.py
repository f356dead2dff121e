"""Reading one snapshot: the secret URL its bytes come from, which ranges hold data, and which were
written or cleared since a base.

Listings go window by window and page by page, so that neither Azure's time limits nor our memory
depend on the disk's size. The exported blob is a VHD: its footer lies behind the disk's last byte
and is cut off here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from models.errors import (
    AzureNotFound,
    AzureThrottled,
    AzureUnavailable,
    BaseUnavailable,
    FailbackError,
    SourceDenied,
    SourceUnavailable,
    Stopped,
)
from models.machine import Snapshot
from platforms.azure.clients import Clients
from platforms.azure.errors import (
    classify,
    retry_after_seconds,
    service_code,
    status_of,
    throttled,
)
from platforms.azure.grants import Grants
from platforms.base import Call, SourceRange

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
# A grant is renewed this much of its time before it ends.
_RENEW_EARLY = 0.1
# Codes that speak of the snapshot itself, not of its relation to the base.
_TIMED_OUT = "operationtimedout"
_SMALLEST_WINDOW_BYTES = 2**30
_ALIGNMENT = 512
_NO_PREVIOUS = "previoussnapshotnotfound"
_CURRENT_GONE = ("blobnotfound", "containernotfound", "resourcenotfound")


class Page(NamedTuple):
    """One answer of a listing; `marker` is where the next one goes on."""

    ranges: list[SourceRange]
    marker: str | None


List = Callable[[int, int, str | None], Page]


class _TooMuch(Exception):
    """Storage ran out of time over a window that can be made smaller."""


class AzureSnapshotReader:
    """Reads one snapshot. Every method may be called from any thread."""

    def __init__(
        self,
        clients: Clients,
        grants: Grants,
        snapshot: Snapshot,
        base: Snapshot | None,
        call: Call,
    ) -> None:
        self._clients = clients
        self._settings = clients.settings
        self._call = call
        self._snapshot = snapshot
        self._base = base
        self._access = _Access(clients, grants, snapshot, call)
        self._base_access = _Access(clients, grants, base, call) if base is not None else None

    def __repr__(self) -> str:
        base = self._base.name if self._base is not None else None
        return f"AzureSnapshotReader({self._snapshot.name!r}, base={base!r})"

    @property
    def size_bytes(self) -> int:
        """The disk's size."""
        return self._snapshot.size_bytes

    @property
    def ca_file(self) -> str | None:
        """CA file for the data endpoint; the system's store if none."""
        return self._settings.ca_file

    def url(self, renew: bool) -> str:
        """The secret URL to read from; `renew` asks for a fresh grant after a refusal."""
        return self._access.url(renew)

    def allocated(self) -> Iterator[SourceRange]:
        """Ranges that hold data; everything else is zeros.

        Raises:
            SourceDenied, SourceUnavailable, AzureThrottled, AzureNotFound
        """
        return _merged(self._listed(self._allocated_page, base=False))

    def changed(self) -> Iterator[SourceRange]:
        """Ranges written or cleared since the base.

        Raises:
            BaseUnavailable: There is no base, it is of another disk or size, or Azure cannot tell.
            SourceDenied, SourceUnavailable, AzureThrottled, AzureNotFound
        """
        self._check_base()
        return _merged(self._listed(self._changed_page, base=True))

    def close(self) -> None:
        """Close connections. The grant stays until it is released."""
        self._access.close()

    def _check_base(self) -> None:
        base, snapshot = self._base, self._snapshot
        if base is None:
            raise BaseUnavailable(f"Snapshot {snapshot.name!r} has no base to compare with.")
        if base.disk_unique_id != snapshot.disk_unique_id:
            raise BaseUnavailable(
                f"Snapshots {base.name!r} and {snapshot.name!r} are not of the same disk: it was "
                "replaced in between."
            )
        if base.size_bytes != snapshot.size_bytes:
            raise BaseUnavailable(
                f"The disk was resized between {base.name!r} ({base.size_bytes} bytes) and "
                f"{snapshot.name!r} ({snapshot.size_bytes} bytes)."
            )

    def _listed(self, page_of: List, *, base: bool) -> Iterator[SourceRange]:
        """All ranges, in order, cut to their window: Azure may name a range that crosses its edge
        in both windows."""
        window = self._settings.page_range_window_bytes
        position = 0
        while position < self.size_bytes:
            end = min(position + window, self.size_bytes)
            try:
                for found in self._window(page_of, position, end, base=base):
                    yield found
                    position = found.offset + found.length
            except _TooMuch:
                window = window // 2 // _ALIGNMENT * _ALIGNMENT
                _log.info("storage needs long for %r; windows are halved", self._snapshot.name)
            else:
                position = end

    def _window(self, page_of: List, start: int, end: int, *, base: bool) -> Iterator[SourceRange]:
        marker: str | None = None
        while True:
            page = self._page(page_of, start, end - start, marker, base=base)
            for found in page.ranges:
                first, last = max(found.offset, start), min(found.offset + found.length, end)
                if first < last:
                    yield SourceRange(first, last - first, found.cleared)
            marker = page.marker
            if not marker:
                return

    def _page(
        self, page_of: List, offset: int, length: int, marker: str | None, *, base: bool
    ) -> Page:
        """One answer, after as many tries as it takes within the time for it."""
        deadline = time.monotonic() + self._settings.backoff_seconds
        backoff = _FIRST_BACKOFF_SECONDS
        renewed = False
        while True:
            if self._call.stop.is_set():
                raise Stopped(f"Stopped while listing ranges of snapshot {self._snapshot.name!r}.")
            try:
                return page_of(offset, length, marker)
            except AzureError as error:
                refused = status_of(error) in (401, 403)
                # A base without a valid grant is answered as if it were not there.
                ungranted = refused or service_code(error).lower() == _NO_PREVIOUS
                failure = self._failure(error, base=base, renewed=renewed)
                wait = max(backoff, retry_after_seconds(error) or 0.0)
                slow = service_code(error).lower() == _TIMED_OUT
            if ungranted and not renewed:
                self._renew(base=base)
                renewed = True
                continue
            if slow and length > _SMALLEST_WINDOW_BYTES:
                raise _TooMuch
            # Not worth waiting for, or not in the time there is.
            if not failure.retryable or refused or time.monotonic() + wait > deadline:
                raise failure
            _log.info("%s; trying again in %.0f s", failure.message, wait)
            self._call.stop.wait(wait)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    def _renew(self, *, base: bool) -> None:
        _log.info("storage refused the grant on %r; it is renewed", self._snapshot.name)
        self._access.url(renew=True)
        if base and self._base_access is not None:
            self._base_url(renew=True)

    def _failure(self, error: AzureError, *, base: bool, renewed: bool) -> FailbackError:
        doing = f"Listing ranges of snapshot {self._snapshot.name!r}"
        failure = classify(error, doing)
        status, code = status_of(error), service_code(error)
        if status in (401, 403):
            return SourceDenied(
                f"{failure.message}" + (" The grant had just been renewed." if renewed else ""),
                hint="Something revokes it, or storage is closed to this network.",
            )
        if isinstance(failure, AzureThrottled):
            return throttled(failure.message, retry_after_seconds(error))
        if isinstance(failure, AzureUnavailable):
            return SourceUnavailable(failure.message, hint="It is tried again.")
        if base and self._base is not None and code.lower() not in _CURRENT_GONE:
            return BaseUnavailable(
                f"Azure cannot say what changed since {self._base.name!r}: {failure.message}"
            )
        return failure

    def _base_url(self, renew: bool) -> str:
        base, access = self._base, self._base_access
        assert base is not None
        assert access is not None
        try:
            return access.url(renew)
        except AzureNotFound:
            pass
        raise BaseUnavailable(f"Base snapshot {base.name!r} is gone.")

    def _allocated_page(self, offset: int, length: int, marker: str | None) -> Page:
        pages = self._access.blob().list_page_ranges(
            offset=offset, length=length, results_per_page=self._settings.page_range_results
        )
        by_page = pages.by_page(continuation_token=marker)
        ranges = [
            _range({"start": found.start, "end": found.end}, cleared=bool(found.cleared))
            for found in next(by_page, [])
        ]
        following: str | None = getattr(by_page, "continuation_token", None)
        return Page([found for found in ranges if not found.cleared], following)

    def _changed_page(self, offset: int, length: int, marker: str | None) -> Page:
        following: list[str | None] = []

        # The public method drops the marker of an answer that is not the last: it is caught here.
        def keep_marker(_response: Any, page: Any, _headers: Any) -> Any:
            following.append(page.next_marker or None)
            return page

        written, cleared = self._access.blob().get_page_range_diff_for_managed_disk(
            self._base_url(renew=False),
            offset=offset,
            length=length,
            maxresults=self._settings.page_range_results,
            cls=keep_marker,
            marker=marker,
        )
        ranges = [_range(found, cleared=False) for found in written]
        ranges += [_range(found, cleared=True) for found in cleared]
        return Page(sorted(ranges), following[-1])


class _Access:
    """The grant on one snapshot and the client that uses it."""

    def __init__(self, clients: Clients, grants: Grants, snapshot: Snapshot, call: Call) -> None:
        self._clients = clients
        self._grants = grants
        self._snapshot = snapshot
        self._call = call
        self._lock = threading.Lock()
        self._url: str | None = None
        self._blob: BlobClient | None = None
        self._granted_at = 0.0

    def __repr__(self) -> str:
        return f"_Access({self._snapshot.name!r})"

    def url(self, renew: bool) -> str:
        """The secret URL, granted anew when it is asked for or about to end."""
        asked_at = time.monotonic()
        with self._lock:
            # Many readers are refused at once; the first one's new grant serves them all.
            wanted = renew and self._granted_at <= asked_at
            if self._url is None or wanted or self._is_ending():
                url = self._grants.grant(self._snapshot, self._call)
                self._granted_at = time.monotonic()
                if url != self._url:
                    self._close()
                    self._url = url
            return self._url

    def blob(self) -> BlobClient:
        """A storage client that uses the grant."""
        url = self.url(renew=False)
        with self._lock:
            if self._blob is None:
                self._blob = self._clients.blob(self._url or url)
            return self._blob

    def close(self) -> None:
        """Close the storage client."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._blob is not None:
            self._blob.close()
            self._blob = None

    def _is_ending(self) -> bool:
        lasts = self._clients.settings.sas_duration_seconds * (1 - _RENEW_EARLY)
        return time.monotonic() - self._granted_at > lasts


def _range(found: dict[str, Any], *, cleared: bool) -> SourceRange:
    return SourceRange(int(found["start"]), int(found["end"]) - int(found["start"]) + 1, cleared)


def _merged(ranges: Iterable[SourceRange]) -> Iterator[SourceRange]:
    """The same ranges with neighbours of one kind made one."""
    pending: SourceRange | None = None
    for found in ranges:
        if (
            pending is not None
            and found.cleared == pending.cleared
            and found.offset <= pending.offset + pending.length
        ):
            end = max(pending.offset + pending.length, found.offset + found.length)
            pending = SourceRange(pending.offset, end - pending.offset, pending.cleared)
            continue
        if pending is not None:
            yield pending
        pending = found
    if pending is not None:
        yield pending
