"""Sources: where a round's bytes come from. The protocol, and the plainest one, a file.

A source is read by several threads at once and never written. What is said of it (its size, how it
likes to be read) lets the pipeline treat a local file and a page blob alike.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from models.errors import SourceChanged, SourceUnavailable
from transfer.ranges import Range

FILE_PIECE_BYTES = 512 * 1024
"""Read and compared at once from a local file: two such pieces stay in a core's cache."""


class Source(Protocol):
    """A disk at one recovery point.

    Attributes:
        size: Bytes of the disk.
        piece_bytes: Bytes a read likes to have.
        parallel_reads: Reads that may usefully be under way at once.
    """

    size: int
    piece_bytes: int
    parallel_reads: int

    def read_into(self, offset: int, view: memoryview, stopping: threading.Event) -> None:
        """Fill `view` from `offset` on; give up waiting once `stopping` is set.

        Raises:
            SourceChanged: If there are fewer bytes than the size promises.
            SourceDenied: If the grant is refused even after it was renewed.
            SourceUnavailable: If it does not answer within its retries.
            Stopped: If `stopping` was set while it waited.
        """

    def interrupt(self) -> None:
        """Make reads that wait for the other side fail soon; their `stopping` is set."""

    def close(self) -> None:
        """Let go of connections or descriptors. May be called again."""


class FileSource:
    """A raw file or a block device of this host.

    Args:
        path: Read through the page cache, with the kernel's read-ahead.
        piece_bytes: Bytes of one read.
    """

    def __init__(self, path: str | Path, piece_bytes: int = FILE_PIECE_BYTES) -> None:
        self.path = Path(path)
        self.piece_bytes = piece_bytes
        self.parallel_reads = 1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unavailable(error) from error
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)

    def read_into(self, offset: int, view: memoryview, stopping: threading.Event) -> None:
        """See `Source.read_into`."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:] if done else view], offset + done)
            except OSError as error:
                raise self._unavailable(error) from error
            if not count:
                raise SourceChanged(
                    f"{self.path} ends at byte {offset + done} of {self.size}.",
                    hint="It was made smaller while it was read; take a new snapshot.",
                )
            done += count

    def allocated(self) -> Iterator[Range]:
        """The ranges that hold data, in order: what `full` and `compare` take.

        A block device cannot tell its holes: all of it may.
        """
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            yield Range(0, self.size)
            return
        offset = 0
        while offset < self.size:
            try:
                offset = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise self._unavailable(error) from error
            end = os.lseek(self._descriptor, offset, os.SEEK_HOLE)
            yield Range(offset, end - offset)
            offset = end

    def interrupt(self) -> None:
        """See `Source.interrupt`; a local read does not wait."""

    def close(self) -> None:
        """See `Source.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        reason = os.strerror(error.errno or 0)
        return SourceUnavailable(f"Could not read {self.path}: {reason}.")
