"""A machine's disks as its guest sees them: an image file, or a checkpoint's layer over one."""

import os
import struct
import threading
from pathlib import Path

from lab.records import Disk
from lab.sparse import SparseFile

BLOCK = 64 * 1024
"""Bytes that a differencing disk copies at once."""
_ENTRY = struct.Struct("<Q")


class ImageDisk:
    """The first `size` bytes of a file; what follows them (a VHD's footer) is out of reach."""

    def __init__(self, file: Path, size: int) -> None:
        self._file = SparseFile(file)
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        return self._file.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._check(offset, len(data))
        self._file.write(offset, data)

    def clear(self, offset: int, length: int) -> None:
        self._check(offset, length)
        self._file.punch(offset, length)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self._size:
            raise OSError(f"{length} bytes at {offset} are outside a disk of {self._size}")


class LayerDisk:
    """A differencing disk: blocks that were written since lie here, all others in the parent.

    `map_file` lists the numbers of the blocks that are here. A block's data is written before its
    number, so that a kill between the two loses only a write that had not returned.
    """

    def __init__(self, parent: Disk, data_file: Path, map_file: Path) -> None:
        self.parent = parent
        self._data = ImageDisk(data_file, parent.size)
        self._map = os.open(map_file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._map_read = 0
        self.blocks: set[int] = set()
        self._read_map()

    @staticmethod
    def create(data_file: Path, map_file: Path, size: int) -> None:
        """Makes an empty layer."""
        map_file.parent.mkdir(parents=True, exist_ok=True)
        map_file.write_bytes(b"")
        with data_file.open("wb") as file:
            file.truncate(size)

    @property
    def size(self) -> int:
        return self.parent.size

    def _read_map(self) -> None:
        """Takes in what the map has got since; another process may look at a running machine's."""
        size = os.fstat(self._map).st_size // _ENTRY.size * _ENTRY.size
        if size > self._map_read:
            entries = os.pread(self._map, size - self._map_read, self._map_read)
            self.blocks.update(number for (number,) in _ENTRY.iter_unpack(entries))
            self._map_read = size

    def read(self, offset: int, length: int) -> bytes:
        self._read_map()
        pieces = []
        for at, size in _pieces(offset, length):
            owner: Disk = self._data if at // BLOCK in self.blocks else self.parent
            pieces.append(owner.read(at, size))
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        for at, size in _pieces(offset, len(data)):
            number = at // BLOCK
            if number not in self.blocks:
                start = number * BLOCK
                whole = min(BLOCK, self.size - start)
                block = bytearray(self.parent.read(start, whole))
                block[at - start : at - start + size] = data[done : done + size]
                self._data.write(start, bytes(block))
                os.write(self._map, _ENTRY.pack(number))
                self.blocks.add(number)
            else:
                self._data.write(at, data[done : done + size])
            done += size

    def clear(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def merge(self) -> None:
        """Copies every block down into the parent; may be done again after a kill."""
        for number in sorted(self.blocks):
            start = number * BLOCK
            self.parent.write(start, self._data.read(start, min(BLOCK, self.size - start)))

    def close(self) -> None:
        os.close(self._map)
        close(self.parent)


class SwitchableDisk:
    """A disk whose backing can be exchanged under a running guest, as a live merge does."""

    def __init__(self, inner: Disk) -> None:
        self.lock = threading.Lock()
        self.inner = inner

    @property
    def size(self) -> int:
        return self.inner.size

    def read(self, offset: int, length: int) -> bytes:
        with self.lock:
            return self.inner.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        with self.lock:
            self.inner.write(offset, data)

    def clear(self, offset: int, length: int) -> None:
        with self.lock:
            self.inner.clear(offset, length)

    def close(self) -> None:
        close(self.inner)


def close(disk: Disk) -> None:
    """Closes what a disk keeps open beside its data, which ends with the last reference."""
    if isinstance(disk, (LayerDisk, SwitchableDisk)):
        disk.close()


def _pieces(offset: int, length: int) -> list[tuple[int, int]]:
    """The (offset, length) parts of a range that each lie in one block."""
    pieces = []
    end = offset + length
    while offset < end:
        size = min(end, (offset // BLOCK + 1) * BLOCK) - offset
        pieces.append((offset, size))
        offset += size
    return pieces
