"""The target: the disk of the on-premises machine, as a block device or a raw file of this host.

Everything the engine does to a disk is here: read, write, zero, make durable, read again from the
device. Whether the disk may be touched at all is asked of `refusals` before it is opened for
writing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from models.errors import DeviceFailed, DiskInUse
from transfer.blocks import Buffer
from transfer.refusals import check_target

_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_BLKZEROOUT = 0x127F
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_ZEROS = memoryview(bytes(1024 * 1024))
_SECTOR = 4096
"""Direct reads are aligned to this: the largest sector in use."""

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class DeviceTarget:
    """A disk to write to; opened exclusively, by `open()` or as a context manager.

    Args:
        path: Block device or raw file. A symbolic link must lead to a block device.
        size: Bytes it must have.
        identity: Serial number, WWN, `/dev/disk/by-id` name or (file) `device:inode` it must have.
    """

    def __init__(self, path: str | Path, size: int, identity: str | None = None) -> None:
        self.path = Path(path)
        self.size = size
        self._identity = identity
        self._descriptor = -1
        self._direct = -1
        self._is_file = False
        self._known_data: tuple[int, int] = (0, 0)
        self._data_lock = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open for writing, so that nobody else on this host can.

        Raises:
            DiskMissing: If there is no such device.
            DiskMismatch: If it has another size or identity, or is no disk at all.
            DiskInUse: If it is mounted, part of another device, or opened exclusively by another.
            DeviceFailed: If it cannot be opened.
        """
        real = check_target(self.path, self.size, self._identity)
        self._is_file = stat.S_ISREG(os.stat(real).st_mode)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if self._is_file else os.O_EXCL)
        with self._reported("open"):
            self._descriptor = os.open(real, flags)
        try:
            if self._is_file:
                self._lock_file()
            self._direct = self._open_direct(real)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the disk. May be called again."""
        for descriptor in (self._direct, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._direct = -1

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the disk, through the page cache. Raises `DeviceFailed`."""
        self._read(self._descriptor, offset, view)

    def read_back(self, offset: int, buffer: Buffer, length: int) -> None:
        """Read from the device, not from the page cache. Raises `DeviceFailed`.

        Args:
            offset: On the disk, a multiple of 64 KiB.
            buffer: Large enough for `length` rounded up to 4 KiB.
            length: Bytes wanted.
        """
        if self._direct < 0:
            self.drop_cache(offset, length)
            self._read(self._descriptor, offset, buffer.view[:length])
            return
        done = 0
        with self._reported("read back"):
            while done < length:
                aligned = -(-(length - done) // _SECTOR) * _SECTOR
                view = buffer.view[done : done + aligned]
                count = os.preadv(self._direct, [view], offset + done)
                if count % _SECTOR and done + count < length:
                    count = count // _SECTOR * _SECTOR
                if count <= 0:
                    raise self._ends_early(offset + done)
                done += count

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of `view`. Raises `DeviceFailed`."""
        with self._reported("write"):
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:] if done else view, offset + done)

    def zero(self, offset: int, length: int) -> None:
        """Make bytes read as zeros, giving space back where it can be. Raises `DeviceFailed`."""
        with self._reported("zero"):
            if self._punch(offset, length) or self._zero_out(offset, length):
                return
            for position in range(offset, offset + length, len(_ZEROS)):
                self.write(position, _ZEROS[: min(len(_ZEROS), offset + length - position)])

    def flush(self) -> None:
        """Return once all that was written is durable. Raises `DeviceFailed`."""
        with self._reported("flush"):
            os.fdatasync(self._descriptor)

    def drop_cache(self, offset: int, length: int) -> None:
        """Forget what the page cache holds of these bytes; they must be durable."""
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def data(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of `offset` to `end` that may hold anything but zeros, as (offset, end).

        A device cannot tell its holes: all of it may.
        """
        if not self._is_file:
            yield offset, end
            return
        while offset < end:
            start, stop = self._next_data(offset)
            if start >= end:
                return
            yield start, min(stop, end)
            offset = stop

    def next_data(self, offset: int) -> int:
        """Where the first byte at or after `offset` lies that may be anything but zero."""
        return self._next_data(offset)[0] if self._is_file else offset

    def is_hole(self, offset: int, end: int) -> bool:
        """Whether these bytes are known to be zeros without reading them."""
        return self._is_file and self._next_data(offset)[0] >= end

    def _next_data(self, offset: int) -> tuple[int, int]:
        """First data at or after `offset`; asked of the file system once per stretch of data.

        What is remembered may have been punched since: then zeros are read, which is only slower.
        """
        with self._data_lock:
            start, stop = self._known_data
            if start <= offset < stop:
                return offset, stop
            try:
                start = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return self.size, self.size
                raise self._failed("look for data", error) from error
            stop = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            self._known_data = (start, stop)
            return start, stop

    def _punch(self, offset: int, length: int) -> bool:
        if _fallocate(self._descriptor, _PUNCH, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))

    def _zero_out(self, offset: int, length: int) -> bool:
        if self._is_file or (offset | length) % 512:
            return False
        try:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno in _UNSUPPORTED or error.errno == errno.ENOTTY:
                return False
            raise
        return True

    def _read(self, descriptor: int, offset: int, view: memoryview) -> None:
        done = 0
        with self._reported("read"):
            while done < len(view):
                count = os.preadv(descriptor, [view[done:] if done else view], offset + done)
                if not count:
                    raise self._ends_early(offset + done)
                done += count

    def _lock_file(self) -> None:
        """Keep other runs (flock) and emulators (record locks, as QEMU takes them) away."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            record = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, record)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                return  # a file system without locks: the lock beside the ledger still holds
            raise DiskInUse(
                f"{self.path} is open elsewhere on this host.",
                hint="Close the program that uses it, or the virtual machine that runs from it.",
            ) from error

    def _open_direct(self, real: Path) -> int:
        try:
            return os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the file system knows no direct reads
                return -1
            raise self._failed("open", error) from error

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: OSError) -> DeviceFailed | DiskInUse:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EBUSY:
            return DiskInUse(
                f"{self.path} is in use on this host.",
                hint="Unmount it, or stop what holds it (lsblk shows what does).",
            )
        hint = (
            "See the kernel's log on the mover; nothing is lost, the round goes on from its ledger."
        )
        return DeviceFailed(f"Could not {what} {self.path}: {reason}.", hint=hint)

    def _ends_early(self, offset: int) -> DeviceFailed:
        return DeviceFailed(
            f"{self.path} ends at byte {offset} of {self.size}.",
            hint="Something made the disk smaller; attach the right one and retry.",
        )
