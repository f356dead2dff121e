"""Peak memory of the engine, for a large disk and for a huge sparse one."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.disks import make_sparse
from benchmarks.measure import MIB, measure, python_module

GIB = 1024 * MIB

DISKS = {
    "4 GiB, all data": (4 * GIB, 4 * GIB),
    "1 TiB sparse, 256 MiB of data": (1024 * GIB, 256 * MIB),
}
"""Bytes of the disk, bytes of data."""


def peak_memory(directory: Path) -> dict[str, int]:
    """Compare each disk with an empty target in a process of its own; peak bytes by name."""
    found = dict[str, int]()
    place = directory / "memory"
    for name, (size, data) in DISKS.items():
        shutil.rmtree(place, ignore_errors=True)
        disks = make_sparse(place, size, data)
        arguments = str(disks.source), str(disks.target), str(place / "state")
        measured = measure(python_module("benchmarks.engine", *arguments), disks.target)
        found[name] = measured.peak_rss_bytes
    shutil.rmtree(place, ignore_errors=True)
    return found
