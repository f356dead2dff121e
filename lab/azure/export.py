"""The managed-disk export host: blobs behind signed URLs, read in ranges, listed in page ranges.

It knows nothing of Resource Manager but the grants; a request without a valid one is a 403. Blob
paths hold the account too, as with all storage emulators on one address.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lab.azure import access, misbehave, pagelist, vhd
from lab.azure.config import Config
from lab.azure.errors import StorageError
from lab.azure.http import Request, Response
from lab.azure.library import Library
from lab.azure.pace import Pace
from lab.azure.store import Store
from lab.chaos import Action, Chaos
from lab.disks import DiskError
from lab.vhd import EPOCH, pack_footer
from lab.writelog import PAGE

DIFF_VERSION = "2019-07-07"  # first version with diffs against a URL
PAGING_VERSION = "2020-10-02"  # first version with markers in page lists
MAX_MD5_RANGE = 4 * 1024 * 1024  # bytes; a larger range cannot have its digest asked for

Grant = dict[str, Any]


class ExportHost:
    """Answers what a client with a SAS may ask: HEAD, GET in ranges, page lists and diffs."""

    def __init__(self, store: Store, library: Library, chaos: Chaos, config: Config) -> None:
        """``config`` says how many ranges a page list holds at most, and how fast bytes go."""
        self._store = store
        self._library = library
        self._chaos = chaos
        self._config = config
        self._pace = Pace(config)

    def handle(self, request: Request) -> Response:
        """Answer one request; every refusal becomes an answer too."""
        try:
            response = self._dispatch(request)
        except StorageError as error:
            response = error.response()
        headers = {
            "Date": formatdate(usegmt=True),
            "Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0",
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-version": request.headers.get("x-ms-version", "2018-11-09"),
            **response.headers,
        }
        if "x-ms-client-request-id" in request.headers:
            headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
        return Response(
            response.status,
            headers,
            response.body,
            response.stream,
            response.length,
            response.close,
        )

    def _dispatch(self, request: Request) -> Response:
        operation = _operation(request)
        action = self._chaos.consult(operation, request.path)
        misbehave.before_storage(action, self._chaos)
        if action is not None and action.kind == "revoke_sas":
            self._revoke(request)
        grant = self._grant(request.path, request.query)
        try:
            response = self._answer(operation, request, grant, action)
        except DiskError as error:
            # The snapshot went away between the check of the grant and the reading.
            raise StorageError(404, "BlobNotFound", str(error)) from error
        misbehave.after(action)
        return response

    def _answer(
        self, operation: str, request: Request, grant: Grant, action: Action | None
    ) -> Response:
        export = self._export(grant)
        if operation == "GET blob":
            return _content(request, grant, export, action, self._pace)
        if operation == "HEAD blob":
            return Response(200, _properties(grant, export), length=export.size)
        if operation in ("GET pagelist", "GET pagelist-diff"):
            return self._page_list(request, grant, export, action)
        message = "The resource doesn't support the specified HTTP verb or comp."
        raise StorageError(405, "UnsupportedHttpVerb", message)

    def _grant(self, path: str, query: dict[str, str]) -> Grant:
        with self._store.reading() as state:
            grant, reason = access.check_signature(state, path, query)
        if grant is None:
            message = (
                "Server failed to authenticate the request. Make sure the value of Authorization "
                f"header is formed correctly including the signature. {reason}"
            )
            raise StorageError(403, "AuthenticationFailed", message)
        return grant

    def _revoke(self, request: Request) -> None:
        with self._store.changing() as state:
            grant = state["grants"].get(request.query.get("si", ""))
            if grant:
                access.revoke(state, grant["resource"])

    def _export(self, grant: Grant) -> vhd.Export:
        view = self._library.disk(grant["disk"]).view(grant["snapshot"])
        unique = uuid.UUID(grant["disk"])
        return vhd.Export(view, pack_footer(view.size, unique, created=EPOCH))

    def _page_list(
        self, request: Request, grant: Grant, export: vhd.Export, action: Action | None
    ) -> Response:
        version = request.headers.get("x-ms-version", "")
        paging = "marker" in request.query or "maxresults" in request.query
        if paging and version < PAGING_VERSION:
            message = "Paging of page ranges is not supported by this version of the service."
            raise StorageError(400, "InvalidQueryParameterValue", message)
        start, end = _window(request, export.size)
        start = max(start, pagelist.position(request.query.get("marker", "")))
        limit = pagelist.limit(request.query.get("maxresults"), self._config.page_ranges_per_page)
        ranges: Iterator[tuple[int, int, bool]]
        if "x-ms-previous-snapshot-url" in request.headers:
            base = self._base(request, grant, version)
            ranges = export.diff(base["snapshot"], start, end)
        else:
            # One more than asked for tells whether there is another page.
            ranges = export.ranges(start, end, limit + 1)
        if action is not None and action.kind == "lie_unchanged":
            ranges = pagelist.silenced(ranges, action.offset, action.length)
        headers = {
            "Content-Type": "application/xml",
            "ETag": _etag(grant),
            "Last-Modified": formatdate(usegmt=True),
            "x-ms-blob-content-length": str(export.size),
        }
        return Response(200, headers, pagelist.document(ranges, limit))

    def _base(self, request: Request, grant: Grant, version: str) -> Grant:
        """The grant of the snapshot that a diff is asked against."""
        if version < DIFF_VERSION:
            message = "The operation for blob cannot be performed due to feature version mismatch."
            raise StorageError(409, "FeatureVersionMismatch", message)
        parts = urlsplit(request.headers["x-ms-previous-snapshot-url"])
        query = dict(parse_qsl(parts.query))
        if (parts.netloc or None) != request.headers.get("host"):
            message = "The previous snapshot URL is not on this account's host."
            raise StorageError(400, "InvalidHeaderValue", message)
        if query.get("sr") != "bs" or grant["timestamp"] is None:
            message = "Server failed to authenticate the request: previous snapshot URL."
            raise StorageError(403, "AuthenticationFailed", message)
        if parts.path != grant["path"]:
            message = "Base blob's generation does not match between the two snapshots."
            raise StorageError(409, "BlobGenerationMismatch", message)
        with self._store.reading() as state:
            known = query.get("si", "") in state["grants"]
        if not known:
            raise StorageError(409, "PreviousSnapshotNotFound", "Previous snapshot is not found.")
        base = self._grant(parts.path, query)
        if base["timestamp"] > grant["timestamp"]:
            message = "The previous snapshot is newer than the snapshot asked for."
            raise StorageError(400, "PreviousSnapshotCannotBeNewer", message)
        return base


def _operation(request: Request) -> str:
    comp = request.query.get("comp")
    if request.method == "GET" and comp == "pagelist":
        if "prevsnapshot" in request.query:
            if "://" in request.query["prevsnapshot"]:
                message = "Value for one of the query parameters specified is invalid."
                raise StorageError(400, "InvalidQueryParameterValue", message)
            message = "Previous snapshot is not supported for managed disks; use its URL."
            raise StorageError(409, "PreviousSnapshotOperationNotSupported", message)
        diff = "x-ms-previous-snapshot-url" in request.headers
        return "GET pagelist-diff" if diff else "GET pagelist"
    if comp is None and request.method in ("GET", "HEAD"):
        return f"{request.method} blob"
    return f"{request.method} {comp or 'blob'} (unsupported)"


def _range(request: Request) -> tuple[int, int | None] | None:
    """The range asked for as (first byte, last byte or ``None``)."""
    text = request.headers.get("x-ms-range") or request.headers.get("range")
    if text is None:
        return None
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text.strip())
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        message = "The value for one of the HTTP headers is not in the correct format."
        raise StorageError(400, "InvalidHeaderValue", message)
    return int(match[1]), int(match[2]) if match[2] else None


def _window(request: Request, size: int) -> tuple[int, int]:
    """The part of the blob that a page list is asked for, as [start, end)."""
    asked = _range(request)
    if asked is None:
        return 0, size
    start, last = asked
    end = size if last is None else min(last + 1, size)
    unaligned = start % PAGE or (last is not None and (last + 1) % PAGE)
    if start >= size or unaligned:
        raise StorageError(416, "InvalidPageRange", "The page range specified is invalid.")
    return start, end


def _content(
    request: Request, grant: Grant, export: vhd.Export, action: Action | None, pace: Pace
) -> Response:
    headers = _properties(grant, export)
    asked = _range(request)
    start, end = 0, export.size
    if asked is not None:
        start, last = asked
        end = min(export.size, export.size if last is None else last + 1)
        if start >= export.size:
            message = "The range specified is invalid for the current size of the resource."
            refused = {"Content-Range": f"bytes */{export.size}"}
            raise StorageError(416, "InvalidRange", message, refused)
    short = action is not None and action.kind == "short_read"
    promised = end - start
    if short and action is not None:
        end = min(end, start + action.byte_count)
        promised = promised if action.how == "close" else end - start
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{start + promised - 1}/{export.size}"
    if request.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
        headers["Content-MD5"] = _digest(asked is not None, export, start, end)
    stream = pace.keep(export.stream(start, end))
    status = 200 if asked is None else 206
    return Response(status, headers, b"", stream, promised, close=short)


def _digest(ranged: bool, export: vhd.Export, start: int, end: int) -> str:
    if not ranged or end - start > MAX_MD5_RANGE:
        message = "The digest can be asked for only with a range of at most 4 MiB."
        raise StorageError(400, "OutOfRangeQueryParameterValue", message)
    digest = hashlib.md5(usedforsecurity=False)
    for piece in export.stream(start, end):
        digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


def _properties(grant: Grant, export: vhd.Export) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": _etag(grant),
        "Last-Modified": formatdate(time.time() - 60, usegmt=True),
        "x-ms-blob-type": "PageBlob",
        "x-ms-blob-sequence-number": "0",
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "true",
    }


def _etag(grant: Grant) -> str:
    """The same for every request to one frozen content, and different for any other."""
    return f'"0x{hashlib.sha256(grant["snapshot"].encode()).hexdigest()[:15].upper()}"'
