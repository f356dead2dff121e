"""Makes two copies of a disk differ as they do when one of them went on working.

Inside files only, so that a file system on the disk stays whole: rewritten blocks all over the
files, and ranges that were zeroed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from lab.filesystem import ImageError, file_extents

BLOCK = 64 * 1024
CLEARED_BYTES = 1 << 20
_ALIGNMENT = 4096
# The files that `lab.filesystem` makes: every eighth is a large one.
_LARGE_FILES = 24


def user_areas(image: Path) -> list[tuple[int, int]]:
    """(offset, length) of some large files of a data disk that `lab.filesystem` made."""
    areas: list[tuple[int, int]] = []
    for number in range(0, 8 * _LARGE_FILES, 8):
        try:
            areas += file_extents(image, f"srv/{number % 16:02d}/{number:05d}.bin")
        except ImageError:
            break  # fewer files than that
    return areas


def data_areas(image: Path, size: int) -> list[tuple[int, int]]:
    """(offset, length) of everything allocated in the first ``size`` bytes of an image."""
    with image.open("rb") as file:
        return list(_runs(file.fileno(), size))


def change(image: Path, areas: list[tuple[int, int]], blocks: int, seed: int) -> None:
    """Rewrite about ``blocks`` blocks of 64 KiB in the areas, and zero some ranges."""
    wide = [(start, length) for start, length in areas if length >= BLOCK]
    if not wide:
        return
    rng = random.Random(seed)
    weights = [length for _, length in wide]
    with image.open("r+b") as file:
        for start, length in rng.choices(wide, weights, k=blocks):
            file.seek(_place(start, length, BLOCK, rng))
            file.write(rng.randbytes(BLOCK))
        for start, length in rng.choices(wide, weights, k=max(1, blocks // 64)):
            cleared = min(CLEARED_BYTES, length // 2 // _ALIGNMENT * _ALIGNMENT)
            file.seek(_place(start, length, cleared, rng))
            file.write(bytes(cleared))


def _place(start: int, length: int, wanted: int, rng: random.Random) -> int:
    return start + rng.randrange((length - wanted) // _ALIGNMENT + 1) * _ALIGNMENT


def _runs(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole up to the end
        if start >= size:
            return
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, at - start
