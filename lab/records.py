"""The record format of the lab's guest: what it writes to its disks and how to read it.

A disk that the guest uses is self-describing. Its first 512 bytes (the boot block, which ext4
leaves to the boot loader) name where a *layout* lies; the layout lists the extents of a ring of 4
KiB record slots and of a scratch area. Record ``n`` has exactly one place: disk ``n % disks``,
slot ``n // disks % slots``. It carries the digest of record ``n - 1``, so that a lost, torn, stale
or reordered block cannot go unnoticed. This module knows bytes and places; `lab.guest` runs the
workload.
"""

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

SLOT = 4096
"""Bytes of one record: one page, so that a killed process cannot leave half of it behind."""
BOOT_BLOCK = 512
LAYOUT_ROOM = 64 * 1024
"""Bytes kept for a layout: room for a badly fragmented file's extents."""

_BOOT_MAGIC = b"LABBOOT1"
_LAYOUT_MAGIC = b"LABLAYT1"
_RECORD_MAGIC = b"LABRECD1"
_EMPTY_MAGIC = b"LABEMPTY"
_BOOT = struct.Struct("<8sQ16s")  # magic, offset of the layout, digest of both
_LAYOUT_HEAD = struct.Struct("<8sI16s")  # magic, bytes of JSON, digest of it
_RECORD_HEAD = struct.Struct("<8sQIBBxxq16s16s")
_DIGEST = 16
SITES = ("azure", "onprem")
KINDS = ("data", "boot", "shutdown")


class LogDamagedError(Exception):
    """The disks do not hold an unbroken log: an operating system on them would not boot."""


class Disk(Protocol):
    """What the guest sees of a virtual disk. Offsets and lengths are bytes."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def clear(self, offset: int, length: int) -> None: ...


def digest(*parts: bytes) -> bytes:
    """BLAKE2b of the parts, cut to 16 bytes."""
    state = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(part)
    return state.digest()


@dataclass(frozen=True)
class Record:
    """One record as it stands on a disk. `time_ns` counts from the epoch in UTC."""

    sequence: int
    disk: int
    site: str
    kind: str
    time_ns: int
    boot_id: str
    previous: bytes
    digest: bytes


def pack_record(
    sequence: int, disk: int, site: str, kind: str, time_ns: int, boot: uuid.UUID, previous: bytes
) -> bytes:
    """The 4096 bytes of a record; everything that the fields leave is random."""
    head = _RECORD_HEAD.pack(
        _RECORD_MAGIC,
        sequence,
        disk,
        SITES.index(site),
        KINDS.index(kind),
        time_ns,
        boot.bytes,
        previous,
    )
    body = head + os.urandom(SLOT - len(head) - _DIGEST)
    return body + digest(body)


def parse_slot(slot: bytes) -> Record | None:
    """The record in a slot, None for an empty one.

    Raises:
        LogDamagedError: the slot is neither a whole record nor an empty slot.
    """
    magic = slot[:8]
    if magic == _EMPTY_MAGIC and slot == empty_slot():
        return None
    if magic != _RECORD_MAGIC or digest(slot[:-_DIGEST]) != slot[-_DIGEST:]:
        raise LogDamagedError("bad checksum")
    _, sequence, disk, site, kind, time_ns, boot, previous = _RECORD_HEAD.unpack_from(slot)
    return Record(
        sequence,
        disk,
        SITES[site],
        KINDS[kind],
        time_ns,
        str(uuid.UUID(bytes=boot)),
        previous,
        slot[-_DIGEST:],
    )


_EMPTY_SLOT = _EMPTY_MAGIC + b"\xa5" * (SLOT - 8)


def empty_slot() -> bytes:
    """An unused slot. Not zeros, so that a tool that makes holes of zeros keeps it allocated."""
    return _EMPTY_SLOT


@dataclass(frozen=True)
class Extents:
    """A run of bytes scattered over a disk: (disk offset, length) in order, 4 KiB aligned."""

    pieces: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        return sum(length for _, length in self.pieces)

    def locate(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """The (disk offset, length) pieces under `length` bytes from `offset` of the run."""
        for start, size in self.pieces:
            if length and offset < size:
                taken = min(size - offset, length)
                yield start + offset, taken
                length -= taken
                offset = 0
            else:
                offset -= min(offset, size)


@dataclass(frozen=True)
class Layout:
    """Where the guest writes on one disk, which is number `index` of the machine's `disks`."""

    machine: str
    index: int
    disks: int
    records: Extents
    scratch: Extents

    @property
    def slots(self) -> int:
        return self.records.length // SLOT

    def slot_offset(self, slot: int) -> int:
        """The disk offset of a slot; slots never straddle extents, both are 4 KiB aligned."""
        return next(self.records.locate(slot * SLOT, SLOT))[0]


def pack_layout(layout: Layout) -> bytes:
    """The layout's bytes, padded to `LAYOUT_ROOM` with non-zero filler."""
    body = json.dumps(
        {
            "machine": layout.machine,
            "index": layout.index,
            "disks": layout.disks,
            "records": layout.records.pieces,
            "scratch": layout.scratch.pieces,
        }
    ).encode()
    packed = _LAYOUT_HEAD.pack(_LAYOUT_MAGIC, len(body), digest(body)) + body
    if len(packed) > LAYOUT_ROOM:
        raise ValueError(f"a layout of {len(packed)} bytes does not fit: the files are fragmented")
    return packed.ljust(LAYOUT_ROOM, b"\xa5")


def pack_boot_block(layout_offset: int) -> bytes:
    """The 512 bytes at the start of the disk that lead to the layout."""
    head = struct.pack("<8sQ", _BOOT_MAGIC, layout_offset)
    return (head + digest(head)).ljust(BOOT_BLOCK, b"\0")


def read_layout(disk: Disk) -> Layout | None:
    """The disk's layout, None when the disk is not one of the guest's.

    Raises:
        LogDamagedError: the boot block names a layout that is damaged.
    """
    block = disk.read(0, BOOT_BLOCK)
    magic, offset, check = _BOOT.unpack_from(block)
    if magic != _BOOT_MAGIC:
        return None
    if digest(block[:16]) != check or offset + LAYOUT_ROOM > disk.size:
        raise LogDamagedError("the boot block is damaged")
    packed = disk.read(offset, LAYOUT_ROOM)
    magic, length, check = _LAYOUT_HEAD.unpack_from(packed)
    body = packed[_LAYOUT_HEAD.size : _LAYOUT_HEAD.size + min(length, LAYOUT_ROOM)]
    if magic != _LAYOUT_MAGIC or digest(body) != check:
        raise LogDamagedError("the layout that the boot block names is damaged")
    fields = json.loads(body)
    return Layout(
        fields["machine"],
        fields["index"],
        fields["disks"],
        Extents(tuple((start, size) for start, size in fields["records"])),
        Extents(tuple((start, size) for start, size in fields["scratch"])),
    )


@dataclass(frozen=True)
class Volume:
    """One disk together with its layout."""

    disk: Disk
    layout: Layout

    def slots(self) -> Iterator[bytes]:
        """Every slot in order, read extent by extent."""
        for start, size in self.layout.records.pieces:
            for at in range(start, start + size, 1 << 20):
                chunk = self.disk.read(at, min(1 << 20, start + size - at))
                for piece in range(0, len(chunk), SLOT):
                    yield chunk[piece : piece + SLOT]


@dataclass(frozen=True)
class Log:
    """The machine's log over all of its volumes, ordered by their index."""

    volumes: tuple[Volume, ...]

    def place(self, sequence: int) -> tuple[Volume, int]:
        """The volume and the slot number of a record."""
        volume = self.volumes[sequence % len(self.volumes)]
        return volume, sequence // len(self.volumes) % volume.layout.slots

    def overwritten(self, sequence: int, last: int) -> bool:
        """Whether the ring has come round to this record's slot by record `last`."""
        volume, _ = self.place(sequence)
        return sequence + len(self.volumes) * volume.layout.slots <= last

    def read(self, sequence: int) -> bytes:
        """The 4096 bytes where the record belongs."""
        volume, slot = self.place(sequence)
        return volume.disk.read(volume.layout.slot_offset(slot), SLOT)

    def last(self) -> Record | None:
        """Checks the whole log and gives its newest record, None when there is none yet.

        Raises:
            LogDamagedError: a slot is damaged, a record missing or stale, or the chain broken.
        """
        records: dict[int, Record] = {}
        for volume in self.volumes:
            for slot, content in enumerate(volume.slots()):
                try:
                    record = parse_slot(content)
                except LogDamagedError as error:
                    where = f"slot {slot} of disk {volume.layout.index}"
                    raise LogDamagedError(f"{error} in {where}") from None
                if record is not None:
                    self._check_place(record, volume, slot)
                    records[record.sequence] = record
        return self._check_chain(records) if records else None

    def _check_place(self, record: Record, volume: Volume, slot: int) -> None:
        if self.place(record.sequence) != (volume, slot):
            where = f"slot {slot} of disk {volume.layout.index}"
            raise LogDamagedError(
                f"record {record.sequence} stands in {where}, where it is not due"
            )

    def _check_chain(self, records: Mapping[int, Record]) -> Record:
        last = max(records)
        first = max(1, last + 1 - sum(volume.layout.slots for volume in self.volumes))
        for sequence in range(last, first - 1, -1):
            if self.overwritten(sequence, last):
                continue
            record = records.get(sequence)
            if record is None:
                raise LogDamagedError(f"record {sequence} is missing; the newest is {last}")
            before = records.get(sequence - 1)
            if before is not None and before.digest != record.previous:
                raise LogDamagedError(f"record {sequence} does not follow record {sequence - 1}")
        return records[last]


def open_log(disks: Sequence[Disk]) -> Log:
    """Finds the guest's volumes among a machine's disks, whatever their order.

    Raises:
        LogDamagedError: no disk has a layout, or some of the set are missing, or they do not belong
            to one machine.
    """
    volumes = {
        layout.index: Volume(disk, layout) for disk in disks if (layout := read_layout(disk))
    }
    if not volumes:
        raise LogDamagedError("no bootable disk: none begins with a boot block")
    expected = next(iter(volumes.values())).layout
    if sorted(volumes) != list(range(expected.disks)):
        raise LogDamagedError(f"found {len(volumes)} of the machine's {expected.disks} data disks")
    if len({volume.layout.machine for volume in volumes.values()}) != 1:
        raise LogDamagedError("the disks belong to different machines")
    return Log(tuple(volumes[index] for index in sorted(volumes)))
