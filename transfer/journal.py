"""The journal: what the target's blocks were before a round first overwrote them.

Each attempt at a round has its own files, append-only: one lane per batch in flight. Batches take
turns at the lanes, and a lane's next batch begins when its last one is durable. So a torn record
can only ever belong to a batch whose blocks were not yet overwritten. A record is a header, the
digests of the old blocks, and their content; zeros are only counted.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blake3 import blake3

from models.errors import StateCorrupt
from transfer.blocks import BLOCK, DIGEST, ZERO_DIGEST, block_count
from transfer.files import (
    READ_WRITE,
    full_disk_is_reported,
    open_private,
    read_exactly,
    sync_directory,
    write_all,
)
from transfer.plan import BATCHES_IN_FLIGHT

LANES = BATCHES_IN_FLIGHT

_MAGIC = b"FBJ1"
_HEADER = struct.Struct("<4s4sQQI")  # magic, kind, offset, length, CRC-32 of these and the digests
_FIRST = b"failback journal 1\n".ljust(64, b"\0")
_KINDS: dict[bytes, Literal["data", "zero"]] = {b"DATA": "data", b"ZERO": "zero"}
_MOST_DATA = 64 * 1024 * 1024
"""Bytes no data record exceeds; a longer one is damage, not a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """Old content of a run of blocks.

    Attributes:
        offset: On the disk.
        length: Bytes on the disk.
        kind: `zero`: the blocks were zeros.
        digests: Of the old blocks; none for zeros.
        content_at: Offset of the old content in the lane's file.
        end: Offset of the next record.
    """

    offset: int
    length: int
    kind: Literal["data", "zero"]
    digests: bytes
    content_at: int
    end: int

    def digests_of(self, start: int, length: int) -> bytes:
        """Digests of the old blocks in `length` bytes from byte `start` of the record on."""
        if self.kind == "zero":
            return ZERO_DIGEST * block_count(length)
        first = start // BLOCK
        return self.digests[first * DIGEST : (first + block_count(length)) * DIGEST]


class JournalLane:
    """One file of a journal.

    Args:
        path: The file; created if it is not there.
        known_end: Bytes that the ledger knows to be durable; what follows is checked, and a torn
            tail cut off.
        writable: Whether records will be appended.

    Raises:
        StateCorrupt: If the durable part is gone.
    """

    def __init__(self, path: Path, known_end: int, *, writable: bool) -> None:
        self.path = path
        self._descriptor = open_private(path, READ_WRITE)
        self._append_lock = threading.Lock()
        self._buffer = memoryview(bytearray())
        self.known_end = max(known_end, len(_FIRST))
        try:
            self._check_first(fresh=known_end <= len(_FIRST), writable=writable)
            self.end = self._valid_end()
            if writable:
                with full_disk_is_reported(path):
                    os.ftruncate(self._descriptor, self.end)
        except BaseException:
            self.close()
            raise

    def append(
        self, offset: int, digests: bytes | None, parts: list[memoryview], length: int
    ) -> None:
        """Append the old content of `length` bytes at `offset`; not durable before `sync`.

        Args:
            offset: On the disk.
            digests: Of the old blocks; None for zeros, which have no parts.
            parts: The old content.
            length: Bytes on the disk.
        """
        kind, extra = (b"ZERO", b"") if digests is None else (b"DATA", digests)
        checksum = zlib.crc32(extra, zlib.crc32(_HEADER.pack(_MAGIC, kind, offset, length, 0)))
        header = _HEADER.pack(_MAGIC, kind, offset, length, checksum) + extra
        with self._append_lock:
            place = self.end
            self.end += len(header) + sum(len(part) for part in parts)
        write_all(self._descriptor, [header, *parts], place, self.path)

    def sync(self) -> int:
        """Make all records durable; returns where they end."""
        with full_disk_is_reported(self.path):
            os.fdatasync(self._descriptor)
        return self.end

    def records(self, start: int = 0) -> Iterator[Record]:
        """The records from `start` on, their content unread.

        Raises:
            StateCorrupt: If one that must be whole is not.
        """
        position = max(start, len(_FIRST))
        while position < self.end:
            record = self._record(position)
            if record is None:
                raise StateCorrupt(
                    f"{self.path} is damaged at byte {position}.",
                    hint="Do not discard it: it holds what the disk was. Copy it, ask for help.",
                )
            yield record
            position = record.end

    def content(self, record: Record, view: memoryview, start: int) -> None:
        """Fill `view` with the old content, from byte `start` of the record on, and check it.

        Args:
            record: A data record.
            view: Whole blocks of it.
            start: In the record's content, a multiple of the block.

        Raises:
            StateCorrupt: If the content is not what its digests say.
        """
        if not self._content_matches(record, view, start):
            raise StateCorrupt(
                f"{self.path}: the old content of byte {record.offset} does not match its digest.",
                hint="Do not discard it. The disk that holds the journal may be failing.",
            )

    def unconfirmed(self) -> Iterator[Record]:
        """Records that the ledger does not know of: a killed attempt's last batches."""
        return self.records(self.known_end)

    @property
    def allocated_bytes(self) -> int:
        """What the lane takes on its disk."""
        return os.fstat(self._descriptor).st_blocks * 512

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check_first(self, *, fresh: bool, writable: bool) -> None:
        size = os.fstat(self._descriptor).st_size
        if size < self.known_end and not fresh:
            raise StateCorrupt(
                f"{self.path} has {size} bytes, the ledger knows of {self.known_end}.",
                hint="Restore it from a backup of the state directory.",
            )
        if size < len(_FIRST) and writable:
            write_all(self._descriptor, [_FIRST], 0, self.path)
            with full_disk_is_reported(self.path):
                os.fsync(self._descriptor)
            sync_directory(self.path.parent)
        elif size >= len(_FIRST) and os.pread(self._descriptor, len(_FIRST), 0) != _FIRST:
            raise StateCorrupt(f"{self.path} is no journal of this version.")

    def _valid_end(self) -> int:
        """End of the last whole record; checks content where the ledger does not vouch for it."""
        position = self.known_end
        while (record := self._record(position)) is not None and self._is_whole(record):
            position = record.end
        return position

    def _is_whole(self, record: Record) -> bool:
        """Whether a record's content is what its digests say, read in small steps."""
        if record.kind == "zero":
            return True
        step = 16 * BLOCK
        return all(
            self._content_matches(
                record, memoryview(bytearray(min(step, record.length - start))), start
            )
            for start in range(0, record.length, step)
        )

    def _content_matches(self, record: Record, view: memoryview, start: int) -> bool:
        if os.preadv(self._descriptor, [view], record.content_at + start) != len(view):
            return False
        first = start // BLOCK * DIGEST
        return all(
            blake3(view[place : place + BLOCK]).digest(length=DIGEST)
            == record.digests[first + number * DIGEST : first + (number + 1) * DIGEST]
            for number, place in enumerate(range(0, len(view), BLOCK))
        )

    def _record(self, position: int) -> Record | None:
        """The record at `position`, or None if it is torn or there is none."""
        raw = os.pread(self._descriptor, _HEADER.size, position)
        if len(raw) < _HEADER.size:
            return None
        magic, kind, offset, length, checksum = _HEADER.unpack(raw)
        if magic != _MAGIC or kind not in _KINDS or not length:
            return None
        is_data = kind == b"DATA"
        if is_data and length > _MOST_DATA:
            return None
        count = block_count(length) * DIGEST if is_data else 0
        try:
            digests = read_exactly(self._descriptor, count, position + _HEADER.size, self.path)
        except StateCorrupt:
            return None
        blank = _HEADER.pack(magic, kind, offset, length, 0)
        if zlib.crc32(digests, zlib.crc32(blank)) != checksum:
            return None
        content_at = position + _HEADER.size + count
        end = content_at + (length if is_data else 0)
        return Record(offset, length, _KINDS[kind], digests, content_at, end)


def lane_paths(directory: Path, layer: int, number: int) -> list[Path]:
    """Where the lanes of an attempt are.

    Args:
        directory: The run's.
        layer: Counts the run's attempts that have their own journal.
        number: Of the round.
    """
    stem = f"round-{number:05d}.layer-{layer:05d}"
    return [directory / f"{stem}.lane-{lane}.journal" for lane in range(LANES)]


def open_lanes(
    directory: Path, layer: int, number: int, known_ends: list[int], *, writable: bool
) -> list[JournalLane]:
    """Open the lanes of an attempt; see `JournalLane`."""
    lanes = list[JournalLane]()
    try:
        for path, known_end in zip(lane_paths(directory, layer, number), known_ends, strict=True):
            lanes.append(JournalLane(path, known_end, writable=writable))
    except BaseException:
        close_lanes(lanes)
        raise
    return lanes


def close_lanes(lanes: list[JournalLane]) -> None:
    """Close the lanes. May be called again."""
    for lane in lanes:
        lane.close()
