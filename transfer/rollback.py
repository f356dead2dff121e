"""Rolling a layer back: every block it overwrote gets its old content again, and is read back.

Each block is in a layer's journal once, so the order within a layer does not matter and doing it
twice is the same as doing it once; between layers it is newest first. A kill in the middle costs
the part since the ledger's last line.
"""

from __future__ import annotations

from dataclasses import dataclass

from transfer.blocks import BLOCK, Buffer, block_count, digest_blocks
from transfer.committer import raise_difference
from transfer.control import Control
from transfer.journal import JournalLane, Record
from transfer.ledger import Layer, Ledger
from transfer.lock import WriterLock
from transfer.manifest import Manifest
from transfer.progress import Meter
from transfer.target import DeviceTarget

_STEP_BYTES = 1024 * 1024
_BATCH_BYTES = 64 * 1024 * 1024
"""Put back between two flushes of the target: what a kill makes the next attempt repeat."""

_BATCH_RECORDS = 16384
"""Records between two flushes: bounds what is remembered where records are short."""


@dataclass(slots=True)
class Restorer:
    """What rolling back one layer needs.

    Attributes:
        blocks: Put back so far.
        bytes: Of those blocks.
    """

    lock: WriterLock
    target: DeviceTarget
    manifest: Manifest
    ledger: Ledger
    layer: Layer
    control: Control
    meter: Meter
    blocks: int = 0
    bytes: int = 0

    def restore(self, lanes: list[JournalLane]) -> None:
        """Put back what the lanes hold.

        Raises:
            StateCorrupt: If the journal is damaged.
            VerificationFailed: If the device reads back as something else.
            Stopped: If told to; call again to go on.
        """
        buffer = Buffer(_STEP_BYTES)
        for number, lane in enumerate(lanes):
            held, size = list[Record](), 0
            for record in lane.records(self.layer.restored_ends[number]):
                self._put_back(lane, record, buffer)
                held.append(record)
                size += record.length
                if size >= _BATCH_BYTES or len(held) >= _BATCH_RECORDS:
                    self._make_durable(number, held, buffer)
                    held, size = [], 0
            if held:
                self._make_durable(number, held, buffer)

    def _put_back(self, lane: JournalLane, record: Record, buffer: Buffer) -> None:
        self.control.check()
        self.lock.check()
        if record.kind == "zero":
            self.target.zero(record.offset, record.length)
            return
        for start in range(0, record.length, _STEP_BYTES):
            view = buffer.view[: min(_STEP_BYTES, record.length - start)]
            lane.content(record, view, start)
            self.target.write(record.offset + start, view)

    def _make_durable(self, lane: int, records: list[Record], buffer: Buffer) -> None:
        self.target.flush()
        for record in records:
            first = record.offset // BLOCK
            if record.kind == "zero":
                self.manifest.store_zeros(first, block_count(record.length))
            else:
                self.manifest.store(first, record.digests)
            self._read_back(record, buffer)
        self.manifest.flush()
        self.ledger.restored(self.layer, lane, records[-1].end)
        self.meter.report()

    def _read_back(self, record: Record, buffer: Buffer) -> None:
        """Compare with the digests taken before the first write, from the journal."""
        for start in range(0, record.length, _STEP_BYTES):
            length = min(_STEP_BYTES, record.length - start)
            self.target.read_back(record.offset + start, buffer, length)
            found = digest_blocks(buffer, 0, length)
            expected = record.digests_of(start, length)
            if found != expected:
                raise_difference(self.target, record.offset + start, expected, found)
        self.blocks += block_count(record.length)
        self.bytes += record.length
        self.meter.done(record.length)
