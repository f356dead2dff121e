"""The readers' part of a round: read a piece of the source, find what differs, save what was there.

Old content goes to the journal from here, long before it is overwritten; the committer waits for
it to be durable. A block is journalled once per layer: those a killed attempt saved are left
alone, because what is on the target by now may be new already.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from transfer.batch import Batch, Change, Piece
from transfer.blocks import (
    BLOCK,
    DIGEST,
    ZERO_DIGEST,
    Buffer,
    BufferPool,
    block_count,
    digest_blocks,
    is_zero,
    same,
)
from transfer.control import Control
from transfer.journal import JournalLane
from transfer.plan import Counters
from transfer.source import Source
from transfer.target import DeviceTarget

WINDOW_BYTES = 1024 * 1024
"""Of the target, read and compared at once: fits the second-level cache beside the source's."""


class Reader:
    """One thread's tools; several work on the same round.

    Args:
        source: Read over the wire.
        target: Read locally.
        lanes: Of the layer's journal.
        journalled: First bytes of blocks that an earlier attempt at this layer saved.
        pool: Where buffers come from.
        control: Asked before each piece.
        target_is_zero: The disk is new: it is not read.
        stopping: Set when the round ends before its time.
    """

    def __init__(
        self,
        source: Source,
        target: DeviceTarget,
        lanes: list[JournalLane],
        journalled: frozenset[int],
        pool: BufferPool,
        control: Control,
        *,
        target_is_zero: bool,
        stopping: threading.Event,
    ) -> None:
        self._source = source
        self._target = target
        self._lanes = lanes
        self._journalled = journalled
        self._pool = pool
        self._control = control
        self._target_is_zero = target_is_zero
        self._stopping = stopping
        self._old = Buffer(WINDOW_BYTES)
        self._zeros = Buffer(WINDOW_BYTES)  # never written: costs one shared page of zeros

    def read(self, piece: Piece) -> Counters:
        """Put what a piece has to do into its batch; returns what it took."""
        self._control.wait_if_paused(self._stopping)
        if piece.kind == "zero":
            return self._clear(piece)
        self._control.throttle(piece.length, self._stopping)
        new = self._pool.acquire(piece.length)
        self._source.read_into(piece.offset, new.view[: piece.length], self._stopping)
        counters = Counters(bytes_done=piece.length, bytes_read=piece.length)
        digests = digest_blocks(new, 0, piece.length)
        dirty = False
        for start in range(0, piece.length, WINDOW_BYTES):
            length = min(WINDOW_BYTES, piece.length - start)
            dirty |= self._compare(piece, new, digests, start, length, counters)
        with piece.batch.lock:
            piece.batch.digests.append((piece.offset // BLOCK, digests))
            piece.batch.counters.add(counters)
            if dirty:
                piece.batch.buffers.append(new)
        if not dirty:
            self._pool.release(new)
        return counters

    def _clear(self, piece: Piece) -> Counters:
        """Find what is not zero yet where the source has nothing."""
        counters = Counters(bytes_done=piece.length)
        with piece.batch.lock:
            piece.batch.clear.append((piece.offset, piece.length))
        if not self._target_is_zero:
            for start in range(0, piece.length, WINDOW_BYTES):
                length = min(WINDOW_BYTES, piece.length - start)
                self._clear_window(piece, piece.offset + start, length, counters)
        with piece.batch.lock:
            piece.batch.counters.add(counters)
        return counters

    def _clear_window(self, piece: Piece, offset: int, length: int, counters: Counters) -> None:
        if self._target.is_hole(offset, offset + length):
            return
        self._target.read_into(offset, self._old.view[:length])
        if is_zero(self._old, 0, length):
            return
        blocks = [not is_zero(self._old, at, size) for at, size in _blocks(0, length)]
        for first, count in _runs(blocks):
            size = _length(first, count, length)
            change = Change(offset + first * BLOCK, size)
            self._change(piece.batch, self._old, change, first * BLOCK)
            counters.bytes_zeroed += size

    def _compare(
        self, piece: Piece, new: Buffer, digests: bytes, start: int, length: int, counters: Counters
    ) -> bool:
        """Compare one window with the target; returns whether the new content must be kept."""
        offset = piece.offset + start
        old = self._old
        if self._target_is_zero or self._target.is_hole(offset, offset + length):
            old = self._zeros
        else:
            self._target.read_into(offset, old.view[:length])
        if same(new.address + start, old.address, length):
            counters.bytes_skipped_equal += length
            return False
        written = zeroed = 0
        for first, count, zeros in _differing(new, old, digests, start, length):
            at, size = first * BLOCK, _length(first, count, length)
            change = Change(offset + at, size, None if zeros else new, start + at)
            self._change(piece.batch, old, change, at)
            if zeros:
                zeroed += size
            else:
                written += size
        counters.bytes_written += written
        counters.bytes_zeroed += zeroed
        counters.bytes_skipped_equal += length - written - zeroed
        return written > 0

    def _change(self, batch: Batch, old: Buffer, change: Change, at: int) -> None:
        """Save the old content, `at` in its window, and have the committer replace it."""
        self._save(self._lanes[batch.lane], old, change.offset - at, at, change.length)
        with batch.lock:
            batch.changes.append(change)

    def _save(self, lane: JournalLane, old: Buffer, offset: int, at: int, length: int) -> None:
        """Journal blocks `at` in the window of old content, in runs of data and of zeros."""
        runs = list[tuple[int, int, bool]]()
        for place, size in _blocks(at, length):
            if offset + place in self._journalled:
                continue
            zeros = is_zero(old, place, size)
            if runs and runs[-1][0] + runs[-1][1] == place and runs[-1][2] == zeros:
                runs[-1] = (runs[-1][0], runs[-1][1] + size, zeros)
            else:
                runs.append((place, size, zeros))
        for place, size, zeros in runs:
            if zeros:
                lane.append(offset + place, None, [], size)
            else:
                digests = digest_blocks(old, place, size)
                parts = [old.view[place : place + size]]
                lane.append(offset + place, digests, parts, size)


def _differing(
    new: Buffer, old: Buffer, digests: bytes, start: int, length: int
) -> Iterator[tuple[int, int, bool]]:
    """Runs of differing blocks in a window, as (first block, count, whether they become zeros)."""
    differs = [
        not same(new.address + start + at, old.address + at, size)
        for at, size in _blocks(0, length)
    ]
    base = start // BLOCK
    for first, count in _runs(differs):
        run_at, zeros = first, _is_zero_digest(digests, base + first)
        for block in range(first + 1, first + count):
            if _is_zero_digest(digests, base + block) != zeros:
                yield run_at, block - run_at, zeros
                run_at, zeros = block, not zeros
        yield run_at, first + count - run_at, zeros


def _is_zero_digest(digests: bytes, block: int) -> bool:
    return digests[block * DIGEST : (block + 1) * DIGEST] == ZERO_DIGEST


def _blocks(start: int, length: int) -> Iterator[tuple[int, int]]:
    """(place, bytes) of the blocks in `length` bytes from `start` on; the last may be partial."""
    end = start + length
    for place in range(start, end, BLOCK):
        yield place, min(BLOCK, end - place)


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """(first, count) of each run of true flags."""
    first = -1
    for number, flag in enumerate([*flags, False]):
        if flag and first < 0:
            first = number
        elif not flag and first >= 0:
            yield first, number - first
            first = -1


def _length(first: int, count: int, window: int) -> int:
    """Bytes of `count` blocks from block `first` of a window; its last block may be partial."""
    assert first + count <= block_count(window)
    return min(count * BLOCK, window - first * BLOCK)
