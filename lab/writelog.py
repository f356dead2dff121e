"""What was written and cleared on a disk, epoch by epoch: diffs follow writes, not content.

An epoch is the time between two snapshots. Each has an append-only file of 16-byte records; a
write is logged *before* the bytes change and a clear also after it, so a process killed in between
leaves a range too many in the log, never one too few, and never calls zero what is not. Reading
the bytes is left to ``lab.disks``.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Iterator
from pathlib import Path

PAGE = 512  # bytes; the unit of page blobs: every range is a whole number of them

WRITE = 0
CLEAR = 1

# Offset and length in bytes. Offsets are multiples of PAGE, so the operation fits in the low bit.
_RECORD = struct.Struct("<QQ")


class RangeMap:
    """Disjoint ranges of bytes, each with the last operation that touched it."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._operations: list[int] = []

    def put(self, start: int, end: int, operation: int) -> None:
        """Lay ``operation`` over [start, end); whatever was there before is forgotten."""
        low = bisect.bisect_right(self._ends, start)
        high = bisect.bisect_left(self._starts, end)
        starts, ends, operations = [start], [end], [operation]
        if low < high and self._starts[low] < start:
            starts.insert(0, self._starts[low])
            ends.insert(0, start)
            operations.insert(0, self._operations[low])
        if low < high and self._ends[high - 1] > end:
            starts.append(end)
            ends.append(self._ends[high - 1])
            operations.append(self._operations[high - 1])
        self._starts[low:high] = starts
        self._ends[low:high] = ends
        self._operations[low:high] = operations

    def items(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(start, end, operation) within [start, end), in order, cut to it, neighbours joined."""
        held: tuple[int, int, int] | None = None
        for index in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            piece = (
                max(start, self._starts[index]),
                min(end, self._ends[index]),
                self._operations[index],
            )
            if held and held[1] == piece[0] and held[2] == piece[2]:
                held = (held[0], piece[1], held[2])
                continue
            if held:
                yield held
            held = piece
        if held:
            yield held


class WriteLog:
    """The epochs' logs of one disk, in one directory. The owner serialises the calls."""

    def __init__(self, directory: Path, epoch: int) -> None:
        """Open the log of ``epoch`` for appending; a record cut short by a kill is dropped."""
        self._directory = directory
        self._epoch = epoch
        self._descriptor = self._open(epoch)

    def append(self, operation: int, offset: int, length: int) -> None:
        """Note that [offset, offset+length), rounded out to pages, is about to change."""
        start = offset - offset % PAGE
        end = -(-(offset + length) // PAGE) * PAGE
        os.write(self._descriptor, _RECORD.pack(start | operation, end - start))

    def begin_epoch(self, epoch: int) -> None:
        """Append to the log of ``epoch`` from now on."""
        os.close(self._descriptor)
        self._epoch = epoch
        self._descriptor = self._open(epoch)

    def changes(self, after_epoch: int, last_epoch: int) -> RangeMap:
        """What was logged in the epochs ``after_epoch`` < e <= ``last_epoch``; the last wins."""
        changes = RangeMap()
        for epoch in range(after_epoch + 1, last_epoch + 1):
            path = self._path(epoch)
            if not path.exists():
                continue
            content = path.read_bytes()
            whole = len(content) - len(content) % _RECORD.size
            for tagged, length in _RECORD.iter_unpack(content[:whole]):
                start = tagged & ~1
                changes.put(start, start + length, tagged & 1)
        return changes

    def forget(self, up_to_epoch: int) -> None:
        """Remove the logs of epochs that no snapshot can be compared across any more."""
        for path in self._directory.glob("epoch-*.log"):
            if int(path.stem.removeprefix("epoch-")) <= up_to_epoch:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the file descriptor back; the log must not be appended to afterwards."""
        os.close(self._descriptor)

    def _path(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch}.log"

    def _open(self, epoch: int) -> int:
        descriptor = os.open(self._path(epoch), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(descriptor).st_size
        os.ftruncate(descriptor, size - size % _RECORD.size)
        return descriptor
