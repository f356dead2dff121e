"""Small disks for tests, and what the engine should make of them, worked out the simple way."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from transfer import DeviceTarget, DiskSession, FileSource, Range, RoundPlan, open_session
from transfer.blocks import BLOCK

MIB = 1024 * 1024
SMALL_SIZE = 24 * BLOCK + 4096 + 512
"""Two dozen blocks and a partial one: several extents, yet small enough for many examples."""

FLAVOURS = ("data", "zero", "patch")


def small_plan(number: int, source_id: str, **changes: object) -> RoundPlan:
    """A plan whose extents and batches are a few blocks, so that small disks have many of them."""
    defaults = {"extent_bytes": 2 * BLOCK, "in_flight_bytes": 8 * BLOCK, "threads": 2}
    return RoundPlan(number, source_id, **{**defaults, **changes})  # type: ignore[arg-type]


def random_disk(size: int, generator: random.Random, *, zero_share: float = 0.3) -> bytes:
    """Content with stretches of zeros, in whole blocks."""
    parts = (
        bytes(BLOCK) if generator.random() < zero_share else generator.randbytes(BLOCK)
        for _ in range(-(-size // BLOCK))
    )
    return b"".join(parts)[:size]


def change(content: bytes, generator: random.Random, changes: int) -> tuple[bytes, list[Range]]:
    """Content with unaligned parts overwritten or cleared, and the list that says so."""
    disk = bytearray(content)
    points = sorted(generator.sample(range(len(disk)), 2 * changes))
    ranges = list[Range]()
    for start, end in zip(points[::2], points[1::2], strict=True):
        flavour = generator.choice(FLAVOURS)
        end = min(end, start + 3 * BLOCK)
        if flavour == "zero":
            disk[start:end] = bytes(end - start)
            ranges.append(Range(start, end - start, "zero"))
            continue
        if flavour == "patch":
            end = min(end, start + 100)
        disk[start:end] = generator.randbytes(end - start)
        ranges.append(Range(start, end - start))
    return bytes(disk), ranges


def write_sparse(path: Path, content: bytes) -> Path:
    """A raw file with holes where a block is zero."""
    with path.open("wb") as file:
        file.truncate(len(content))
        for place in range(0, len(content), BLOCK):
            block = content[place : place + BLOCK]
            if any(block):
                os.pwrite(file.fileno(), block, place)
    return path


def session(tmp_path: Path, target: Path, size: int, run: str = "run-1") -> DiskSession:
    """A session of the disk `disk-1` with its state beside the test's files."""
    return open_session(
        tmp_path / "state", "disk-1", run, DeviceTarget(target, size), wait_for_lock_seconds=5
    )


def allocated(path: Path) -> int:
    """Bytes a file takes on its disk."""
    return path.stat().st_blocks * 512


def expected_root(content: bytes) -> str:
    """The manifest's root of a disk, by the definition, all in memory."""
    level = [
        bytes(16) if not any(block) else blake3(block).digest(length=16)
        for block in (content[at : at + BLOCK] for at in range(0, len(content), BLOCK))
    ]
    while len(level) > 1:
        level += [bytes(16)] * (-len(level) % 256)
        groups = (b"".join(level[at : at + 256]) for at in range(0, len(level), 256))
        level = [blake3(group).digest(length=16) if any(group) else bytes(16) for group in groups]
    head = len(content).to_bytes(8, "little") + BLOCK.to_bytes(4, "little")
    return blake3(b"failback manifest 1" + head + level[0]).hexdigest()


class FailingSource(FileSource):
    """A file whose reads fail after a while, as a lost connection does."""

    def __init__(self, path: Path, reads_before_failure: int, error: Exception) -> None:
        super().__init__(path, piece_bytes=BLOCK)
        self._left = reads_before_failure
        self._error = error
        self._count_lock = threading.Lock()

    def read_into(self, offset: int, view: memoryview, stopping: threading.Event) -> None:
        """Read, unless the time has come."""
        with self._count_lock:
            self._left -= 1
            failed = self._left < 0
        if failed:
            raise self._error
        super().read_into(offset, view, stopping)


def covered_blocks(ranges: Iterable[Range]) -> set[int]:
    """Blocks that any of the ranges touches."""
    return {block for one in ranges for block in range(one.offset // BLOCK, -(-one.end // BLOCK))}
