"""One writer per disk: an exclusive lock on this host and a generation number beside it.

Who wants the disk raises the generation first and then waits for the lock. The writer that has it
looks at the generation before each write, finds a newer one, stops and lets go. So a retried
activity never writes beside its own predecessor that is not yet dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from pathlib import Path
from threading import Event

from models.errors import DiskBusy, StateCorrupt, Superseded
from transfer.files import full_disk_is_reported, open_private, sync_directory, write_all

_GENERATION = struct.Struct("<QI")
_POLL_SECONDS = 0.02


class WriterLock:
    """The right to write one disk, held from construction to `close`.

    Args:
        directory: Of the disk's state; must exist.
        wait_seconds: How long an older writer may take to stop.

    Raises:
        DiskBusy: If it did not stop in time.
        Superseded: If a still newer writer came while this one waited.
    """

    def __init__(self, directory: Path, wait_seconds: float) -> None:
        self._path = directory / "generation"
        self._numbers = open_private(self._path)
        self._lock = -1
        try:
            self.generation = self._raise_generation()
            self._lock = open_private(directory / "lock")
            self._wait(time.monotonic() + wait_seconds, wait_seconds)
            self.check()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise `Superseded` if a newer writer wants the disk; asked before each write."""
        newest = self._read()
        if newest != self.generation:
            raise Superseded(
                f"Writer {newest} took over from writer {self.generation} of this disk.",
                hint="Nothing is lost: the newer one goes on from the ledger.",
            )

    def close(self) -> None:
        """Let go. May be called again."""
        for descriptor in (self._lock, self._numbers):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._numbers = -1

    def _raise_generation(self) -> int:
        fcntl.flock(self._numbers, fcntl.LOCK_EX)
        try:
            generation = self._read() + 1
            number = struct.pack("<Q", generation)
            content = _GENERATION.pack(generation, zlib.crc32(number))
            write_all(self._numbers, [content], 0, self._path)
            with full_disk_is_reported(self._path):
                os.fsync(self._numbers)
            sync_directory(self._path.parent)
            return generation
        finally:
            fcntl.flock(self._numbers, fcntl.LOCK_UN)

    def _read(self) -> int:
        generation = _parse(os.pread(self._numbers, _GENERATION.size, 0))
        if generation is None:  # read while another raised it: once more, when it has
            fcntl.flock(self._numbers, fcntl.LOCK_SH)
            generation = _parse(os.pread(self._numbers, _GENERATION.size, 0))
            fcntl.flock(self._numbers, fcntl.LOCK_UN)
        if generation is not None:
            return generation
        raise StateCorrupt(
            f"{self._path} is damaged.", hint="Make sure no mover runs, then remove the file."
        )

    def _wait(self, deadline: float, seconds: float) -> None:
        pause = Event()
        while True:
            self.check()
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > deadline:
                raise DiskBusy(
                    f"Another writer held {self._path.parent.name} for {seconds:g} s.",
                    hint="It may hang in a slow disk; retry, or look for its process.",
                )
            pause.wait(_POLL_SECONDS)


def _parse(content: bytes) -> int | None:
    """The generation in the file's content, 0 in a new file, None if it is torn."""
    if not content:
        return 0
    if len(content) != _GENERATION.size:
        return None
    generation, checksum = _GENERATION.unpack(content)
    return int(generation) if zlib.crc32(content[:8]) == checksum else None
