"""The disks of a benchmark: a base, a source that differs from it here and there, a target."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import MIB, make_durable

CLUSTER = 64 * 1024
"""Bytes changed at once: what a guest's file system dirties, and the engine's block."""


@dataclass
class Disks:
    """A set of raw files of one size.

    Attributes:
        base: What the target holds before a run.
        source: The base with clusters replaced.
        target: What contenders write to.
        changes: JSON list of [offset, length]: where source and base differ.
        dirty: Offsets of those clusters.
    """

    directory: Path
    size: int
    dirty: list[int]

    @property
    def base(self) -> Path:
        return self.directory / "base.raw"

    @property
    def source(self) -> Path:
        return self.directory / "source.raw"

    @property
    def target(self) -> Path:
        return self.directory / "target.raw"

    @property
    def changes(self) -> Path:
        return self.directory / "changes.json"

    def reset(self) -> None:
        """Make the target the base again, durably, by putting the changed clusters back."""
        with self.base.open("rb") as base, self.target.open("r+b") as target:
            for offset in self.dirty:
                os.pwrite(target.fileno(), os.pread(base.fileno(), CLUSTER, offset), offset)
        make_durable(self.target)

    def empty_target(self) -> None:
        """Make the target a new, empty disk."""
        self.target.unlink()
        with self.target.open("wb") as target:
            target.truncate(self.size)
        make_durable(self.target)

    def evict(self) -> None:
        """Drop source and target from the page cache."""
        for path in (self.source, self.target):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def equal(self) -> bool:
        """Whether the target holds what the source holds."""
        with self.source.open("rb") as source, self.target.open("rb") as target:
            while chunk := source.read(4 * MIB):
                if chunk != target.read(len(chunk)):
                    return False
        return True


def make_disks(directory: Path, size: int, dirty_share: float) -> Disks:
    """Make a base full of random data, and a source that differs in random clusters."""
    directory.mkdir(parents=True, exist_ok=True)
    clusters = size // CLUSTER
    chosen = random.Random(1).sample(range(clusters), int(clusters * dirty_share))
    disks = Disks(directory, size, sorted(cluster * CLUSTER for cluster in chosen))
    with disks.base.open("wb") as base:
        for length in _pieces(size):
            base.write(os.urandom(length))
    shutil.copy(disks.base, disks.source)
    shutil.copy(disks.base, disks.target)
    with disks.source.open("r+b") as source:
        for offset in disks.dirty:
            os.pwrite(source.fileno(), os.urandom(CLUSTER), offset)
    disks.changes.write_text(json.dumps([[offset, CLUSTER] for offset in disks.dirty]))
    for path in (disks.base, disks.source, disks.target):
        make_durable(path)
    return disks


def make_sparse(directory: Path, size: int, data: int) -> Disks:
    """Make a source that is holes but for `data` bytes in 1 MiB pieces, and an empty target."""
    directory.mkdir(parents=True, exist_ok=True)
    disks = Disks(directory, size, [])
    with disks.source.open("wb") as source:
        source.truncate(size)
        for number in range(data // MIB):
            os.pwrite(
                source.fileno(), os.urandom(MIB), number * (size // (data // MIB)) // MIB * MIB
            )
    with disks.target.open("wb") as target:
        target.truncate(size)
    return disks


def _pieces(size: int) -> Iterator[int]:
    while size:
        yield min(size, 16 * MIB)
        size -= min(size, 16 * MIB)
