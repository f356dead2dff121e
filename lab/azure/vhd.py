"""An exported disk as a blob: the disk's bytes and, as its last page, a fixed VHD footer."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from lab.disks import SnapshotView

FOOTER = 512  # bytes
CHUNK = 1024 * 1024  # bytes read at a time while a body is sent
VHD_EPOCH = 946684800  # 2000-01-01 in seconds since 1970; VHD time stamps count from there
_ZEROS = memoryview(bytes(CHUNK))


def footer(size: int, unique_id: uuid.UUID, created: int) -> bytes:
    """The footer of a fixed VHD of ``size`` bytes; ``created`` in seconds since 1970."""
    fields = struct.pack(
        ">8sIIQI4sI4sQQIII16sB427x",
        b"conectix",
        2,  # features: the reserved bit, always set
        0x00010000,
        0xFFFFFFFFFFFFFFFF,  # fixed disks have no dynamic header
        max(0, created - VHD_EPOCH),
        b"win ",
        0x000A0000,
        b"Wi2k",
        size,
        size,
        _geometry(size),
        2,  # fixed
        0,
        unique_id.bytes,
        0,
    )
    checksum = ~sum(fields) & 0xFFFFFFFF
    return fields[:64] + checksum.to_bytes(4, "big") + fields[68:]


def _geometry(size: int) -> int:
    """Cylinders, heads and sectors per track packed as the VHD specification computes them."""
    sectors = min(size // 512, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        tracks = sectors // per_track
    else:
        per_track = 17
        tracks = sectors // per_track
        heads = max(4, (tracks + 1023) // 1024)
        if tracks >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            tracks = sectors // per_track
        if tracks >= heads * 1024:
            per_track, heads = 63, 16
            tracks = sectors // per_track
    return (tracks // heads) << 16 | heads << 8 | per_track


class Export:
    """One frozen disk content with its footer: what a SAS gives access to."""

    def __init__(self, view: SnapshotView, footer_page: bytes) -> None:
        """``view`` is the content; ``footer_page`` comes after it."""
        self._view = view
        self._footer = footer_page
        self.size = view.size + FOOTER

    @property
    def snapshot_id(self) -> str:
        """The snapshot behind the export."""
        return self._view.snapshot_id

    def stream(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes [start, end) in pieces; a piece is valid until the next one is taken."""
        buffer = memoryview(bytearray(min(CHUNK, max(1, end - start))))
        position = start
        while position < min(end, self._view.size):
            count = min(CHUNK, min(end, self._view.size) - position)
            if not self._view.allocated(position, position + count, 1):
                yield _ZEROS[:count]
            else:
                piece = buffer[:count]
                self._view.read_into(position, piece)
                yield piece
            position += count
        if position < end:
            first = position - self._view.size
            yield memoryview(self._footer)[first : end - self._view.size]

    def ranges(self, start: int, end: int, limit: int) -> Iterator[tuple[int, int, bool]]:
        """Allocated ranges within [start, end) as (start, end, False), the footer included.

        With more than ``limit`` of them only the first ``limit`` need be there.
        """
        allocated = self._view.allocated(start, min(end, self._view.size), limit)
        return self._with_footer(((a, b, False) for a, b in allocated), start, end)

    def diff(self, base_id: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Changes since an older snapshot as (start, end, cleared), the footer included."""
        window_end = min(end, self._view.size)
        changes = self._view.disk.diff(base_id, self._view.snapshot_id, start, window_end)
        return self._with_footer(iter(changes), start, end)

    def _with_footer(
        self, ranges: Iterator[tuple[int, int, bool]], start: int, end: int
    ) -> Iterator[tuple[int, int, bool]]:
        last: tuple[int, int, bool] | None = None
        for last in ranges:
            if last[1] == self._view.size and not last[2] and end > self._view.size:
                yield last[0], end, False
                return
            yield last
        if end > self._view.size:
            yield max(start, self._view.size), end, False
