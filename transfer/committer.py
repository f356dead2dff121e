"""The committer's part of a round: make batches durable, each in the safe order.

Old content durable in the journal, then the target written and durable, then read back from the
device, then the digests durable, and only then the ledger's line. A kill between any two of these
steps leaves a state from which the round resumes or rolls back.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from models.errors import VerificationFailed
from transfer.batch import Batch, Change
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
from transfer.journal import JournalLane
from transfer.ledger import Layer, Ledger
from transfer.lock import WriterLock
from transfer.manifest import Manifest
from transfer.target import DeviceTarget

READ_BACK_THREADS = 4
"""Reads of the device under way at once: they are direct, so nothing reads ahead for them."""

READ_BACK_BYTES = 1024 * 1024
"""Of one direct read: large enough for the device to stream, small against the memory budget."""


class Committer:
    """Makes the batches of one layer durable: three stages, each at work on another batch.

    Args:
        lock: Asked before each write whether this writer is still the newest.
        target: Written.
        lanes: Of the layer's journal.
        ledger: Gets a line per batch.
        layer: Whose batches these are.
        manifest: Gets the digests.
        verify: Whether to read back from the device what was written.
    """

    def __init__(
        self,
        lock: WriterLock,
        target: DeviceTarget,
        lanes: list[JournalLane],
        ledger: Ledger,
        layer: Layer,
        manifest: Manifest,
        *,
        verify: bool,
    ) -> None:
        self._lock = lock
        self._target = target
        self._lanes = lanes
        self._ledger = ledger
        self._layer = layer
        self._manifest = manifest
        self._verify = verify
        self._buffers = BufferPool(READ_BACK_THREADS * READ_BACK_BYTES)
        self._readers = ThreadPoolExecutor(READ_BACK_THREADS, "read-back")
        self.stages = (self.save, self.write, self.prove)

    def close(self) -> None:
        """End the helper threads."""
        self._readers.shutdown()

    def save(self, batch: Batch) -> None:
        """Make the old content durable. Raises `JournalFull`."""
        lane = self._lanes[batch.lane]
        batch.journal_end = lane.sync() if batch.is_dirty else lane.end

    def write(self, batch: Batch) -> None:
        """Replace it on the target, durably.

        Raises:
            Superseded: If a newer writer came.
            DeviceFailed: If the target fails.
        """
        for change in sorted(batch.changes, key=_by_offset):
            self._lock.check()
            if change.buffer is None:
                self._target.zero(change.offset, change.length)
            else:
                content = change.buffer.view[change.start : change.start + change.length]
                self._target.write(change.offset, content)
        if batch.is_dirty:
            self._target.flush()

    def prove(self, batch: Batch) -> None:
        """Read it back, make the digests durable, and write the ledger's line.

        Raises:
            VerificationFailed: If the device reads back as something else.
            JournalFull: If the disk of the state is full.
        """
        self._lock.check()
        self._store_digests(batch)
        if batch.is_dirty:
            self._read_back(batch)
            self._manifest.flush()
        self._ledger.applied(
            self._layer,
            batch.extents,
            batch.lane,
            batch.journal_end,
            batch.counters,
            durable=batch.is_dirty,
        )

    def _store_digests(self, batch: Batch) -> None:
        """Digests may be ahead of the ledger's line: until then they are worked out again."""
        for offset, length in batch.clear:
            self._manifest.store_zeros(offset // BLOCK, block_count(length))
        first, joined = -1, bytearray()
        for block, digests in sorted(batch.digests):
            if joined and block != first + len(joined) // DIGEST:
                self._manifest.store(first, bytes(joined))
                joined.clear()
            if not joined:
                first = block
            joined += digests
        if joined:
            self._manifest.store(first, bytes(joined))

    def _read_back(self, batch: Batch) -> None:
        """Compare the device with what came from the source, which is still at hand."""
        if not self._verify:
            return
        changes = sorted(batch.changes, key=_by_offset)
        shares = [changes[number::READ_BACK_THREADS] for number in range(READ_BACK_THREADS)]
        for _ in self._readers.map(self._read_back_share, shares):
            pass

    def _read_back_share(self, changes: list[Change]) -> None:
        if not changes:
            return
        buffer = self._buffers.acquire(READ_BACK_BYTES)
        for change in changes:
            for start in range(0, change.length, READ_BACK_BYTES):
                size = min(READ_BACK_BYTES, change.length - start)
                self._target.read_back(change.offset + start, buffer, size)
                self._expect(change, start, buffer, size)
        self._buffers.release(buffer)

    def _expect(self, change: Change, start: int, found: Buffer, length: int) -> None:
        if change.buffer is None:
            if not is_zero(found, 0, length):
                zeros = ZERO_DIGEST * block_count(length)
                raise_difference(
                    self._target, change.offset + start, zeros, digest_blocks(found, 0, length)
                )
            return
        place = change.start + start
        if not same(found.address, change.buffer.address + place, length):
            expected = digest_blocks(change.buffer, place, length)
            raise_difference(
                self._target, change.offset + start, expected, digest_blocks(found, 0, length)
            )


def raise_difference(target: DeviceTarget, offset: int, expected: bytes, found: bytes) -> None:
    """Raise `VerificationFailed` for the first digest that differs.

    Args:
        target: What was read.
        offset: Of the first block.
        expected: Digests, one after the other.
        found: As many.
    """
    for place in range(0, len(expected), DIGEST):
        if expected[place : place + DIGEST] != found[place : place + DIGEST]:
            block_at = offset + place // DIGEST * BLOCK
            raise VerificationFailed(
                f"{target.path}: the block at byte {block_at} is not what was written there.",
                hint="The device or its path is failing. Check it, then retry or abort.",
            )


def _by_offset(change: Change) -> int:
    return change.offset
