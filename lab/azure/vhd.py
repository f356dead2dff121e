"""An exported disk as a blob: the disk's bytes and, as its last page, a fixed VHD footer."""

from __future__ import annotations

from collections.abc import Iterator

from lab.disks import SnapshotView
from lab.vhd import FOOTER

CHUNK = 1024 * 1024  # bytes read at a time while a body is sent
_ZEROS = memoryview(bytes(CHUNK))


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
