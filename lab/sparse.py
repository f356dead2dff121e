"""Sparse files: holes are found, made, kept and read without touching the disk."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

COPY_CHUNK = 1024 * 1024  # bytes read and written at a time when data is copied


class SparseFile:
    """A file read and written by position. The descriptor closes with the last reference to it.

    (An explicit close could hand its number to another file under a concurrent reader.)
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, creating it empty if it is not there."""
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``; zeros beyond the end of the file."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``, with zeros beyond the end of the file."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if count == 0:
                buffer[done:] = bytes(len(buffer) - done)
                return
            done += count

    def write(self, offset: int, content: bytes | bytearray | memoryview) -> None:
        """Write all of ``content`` at ``offset``."""
        view = memoryview(content)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def punch(self, offset: int, length: int) -> None:
        """Make a range read as zeros and, where the file system can, take no space."""
        if length == 0:
            return
        mode = _PUNCH_HOLE | _KEEP_SIZE
        if _libc.fallocate(self._descriptor, mode, offset, length) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
        for position in range(offset, offset + length, COPY_CHUNK):
            self.write(position, bytes(min(COPY_CHUNK, offset + length - position)))

    def truncate(self, size: int) -> None:
        """Set the file's size in bytes."""
        os.ftruncate(self._descriptor, size)

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges within [start, end) that are not holes, in order."""
        position = start
        while position < end:
            try:
                first = os.lseek(self._descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # no data from here to the end of the file
                raise
            if first >= end:
                return
            last = min(end, os.lseek(self._descriptor, first, os.SEEK_HOLE))
            yield max(first, start), last
            position = last

    def copy_range(self, source: SparseFile, offset: int, length: int) -> None:
        """Make [offset, offset+length) the same as in ``source``: data as data, holes as holes."""
        position = offset
        for first, last in source.data(offset, offset + length):
            self.punch(position, first - position)
            for chunk in range(first, last, COPY_CHUNK):
                self.write(chunk, source.read(chunk, min(COPY_CHUNK, last - chunk)))
            position = last
        self.punch(position, offset + length - position)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, keeping its holes."""
    target.unlink(missing_ok=True)
    origin, copy = SparseFile(source), SparseFile(target)
    size = source.stat().st_size
    copy.truncate(size)
    for start, end in origin.data(0, size):
        for offset in range(start, end, COPY_CHUNK):
            copy.write(offset, origin.read(offset, min(COPY_CHUNK, end - offset)))
