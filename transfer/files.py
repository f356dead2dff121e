"""State files: private, durable, and honest about a full disk.

Everything the engine keeps (journal, ledger, manifest) is written through here, so that files are
readable by their owner only and a full disk becomes `JournalFull`, whatever the system call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.errors import JournalFull, StateCorrupt

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

READ_ONLY = os.O_RDONLY | os.O_CLOEXEC
READ_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC

_IOV_MAX = 1024
"""Buffers one vectored write takes on Linux."""


@contextmanager
def full_disk_is_reported(path: Path) -> Iterator[None]:
    """Turn "no space left" for a state file into `JournalFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise JournalFull(
            f"The disk that holds {path} is full ({os.strerror(error.errno or 0)}).",
            hint="Nothing is lost: make room, then retry; or abort, which gives the room back.",
        ) from error


def open_private(path: Path, flags: int = READ_WRITE) -> int:
    """Open a state file, created readable by its owner only. Raises `JournalFull`."""
    with full_disk_is_reported(path):
        return os.open(path, flags, 0o600)


def make_private_directory(path: Path) -> None:
    """Create a directory of the owner's, parents included, durable in its parent."""
    if path.is_dir():
        return
    with full_disk_is_reported(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names that were created in or removed from a directory durable."""
    descriptor = os.open(path, READ_ONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path`: after any crash either the old or the new is there."""
    draft = path.with_name(path.name + ".new")
    descriptor = open_private(draft, READ_WRITE | os.O_TRUNC)
    try:
        write_all(descriptor, [content], 0, draft)
        with full_disk_is_reported(draft):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
    sync_directory(path.parent)


def write_all(
    descriptor: int, parts: Sequence[bytes | memoryview], offset: int, path: Path
) -> None:
    """Write all parts, one after the other, from `offset` on. Raises `JournalFull`."""
    with full_disk_is_reported(path):
        for first in range(0, len(parts), _IOV_MAX):
            offset += _write_some(descriptor, parts[first : first + _IOV_MAX], offset)


def _write_some(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
    total = sum(len(part) for part in parts)
    written = os.pwritev(descriptor, parts, offset)
    if written < total:  # a signal or a nearly full disk: the rest tells which
        rest = memoryview(b"".join(parts))
        while written < total:
            written += os.pwrite(descriptor, rest[written:], offset + written)
    return total


def read_exactly(descriptor: int, length: int, offset: int, path: Path) -> bytes:
    """Read `length` bytes of a state file.

    Raises:
        StateCorrupt: If the file ends before.
    """
    parts = list[bytes]()
    while length:
        part = os.pread(descriptor, length, offset)
        if not part:
            raise StateCorrupt(f"{path} ends at byte {offset}, before it should.")
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)
