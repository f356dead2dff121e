"""A disk that is said to be new is not read, so a look at it comes before its first write."""

from __future__ import annotations

import random

from models.errors import DiskMismatch
from transfer.blocks import BLOCK, Buffer, block_count, is_zero
from transfer.target import DeviceTarget

_SAMPLES = 256
"""Blocks read: 16 MiB, a moment; the first ones catch every partition table."""


def check_is_new(target: DeviceTarget) -> None:
    """Look at the beginning, the end and a random sample of a disk.

    Raises:
        DiskMismatch: If one block is not zero; the disk holds something.
    """
    last = block_count(target.size) - 1
    inner = random.Random().sample(range(last + 1), min(last + 1, _SAMPLES))
    buffer = Buffer(BLOCK)
    for block in sorted({0, last, *range(min(16, last)), *inner}):
        offset = block * BLOCK
        length = min(BLOCK, target.size - offset)
        if target.is_hole(offset, offset + length):
            continue
        target.read_into(offset, buffer.view[:length])
        if not is_zero(buffer, 0, length):
            raise DiskMismatch(
                f"{target.path} was to be a new disk, but holds data at byte {offset}.",
                hint="Check which disk was attached; an existing one is compared, not filled.",
            )
