"""A round's ranges, written down once: the source is asked for them a single time.

Listing ranges costs requests to the cloud, and a round passes over them more than once (the audit,
the total, the copy). They are kept in a nameless file beside the journal, so memory stays bounded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from transfer.control import Control
from transfer.files import open_private, read_exactly, write_all
from transfer.ranges import Kind, Range

_ENTRY = struct.Struct("<QQB")
_ENTRIES_AT_ONCE = 4096
"""Written and read at once: 68 KiB."""

_KINDS: tuple[Kind, Kind] = ("data", "zero")


class RangeSpool:
    """Ranges on disk, in order; iterate as often as needed.

    Args:
        directory: Of the run.
        ranges: Passed over once, now.
        control: Asked whether to stop while they arrive.

    Raises:
        JournalFull: If there is no room for them.
        Stopped: If told to.
    """

    def __init__(self, directory: Path, ranges: Iterable[Range], control: Control) -> None:
        self._path = directory / "ranges"
        self._descriptor = open_private(self._path)
        self._path.unlink()
        self._end = 0
        self.total_bytes = 0
        try:
            self._fill(iter(ranges), control)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Range]:
        step = _ENTRIES_AT_ONCE * _ENTRY.size
        for place in range(0, self._end, step):
            length = min(step, self._end - place)
            content = read_exactly(self._descriptor, length, place, self._path)
            for offset, size, kind in _ENTRY.iter_unpack(content):
                yield Range(offset, size, _KINDS[kind])

    def close(self) -> None:
        """Forget the ranges. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _fill(self, ranges: Iterator[Range], control: Control) -> None:
        while entries := list(islice(ranges, _ENTRIES_AT_ONCE)):
            control.check()
            packed = (_ENTRY.pack(one.offset, one.length, one.kind == "zero") for one in entries)
            content = b"".join(packed)
            write_all(self._descriptor, [content], self._end, self._path)
            self._end += len(content)
            self.total_bytes += sum(one.length for one in entries)
