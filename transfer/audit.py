"""The audit: a random sample of the blocks a delta says are unchanged is compared all the same.

If the list of changes misses one, the base cannot be trusted. The sample is read before anything is
written, from the source and from the target, and both are held against the manifest.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from models.errors import BaseUntrusted
from transfer.blocks import BLOCK, Buffer, block_count, digest_blocks
from transfer.control import Control
from transfer.manifest import Manifest
from transfer.progress import Meter
from transfer.ranges import Range
from transfer.source import Source
from transfer.target import DeviceTarget

_OVERSAMPLING = 4
"""Blocks drawn per block wanted, since some of them will lie in changed ranges."""

_MOST_THREADS = 8


def draw_unchanged(
    changed: Iterable[Range], size: int, samples: int, generator: random.Random
) -> list[int]:
    """Draw blocks outside of the changed ranges.

    Args:
        changed: Whole-block ranges, in order.
        size: Bytes of the disk.
        samples: Blocks wanted; fewer come back where few are unchanged.
        generator: Seeded, so that a report can be repeated.

    Returns:
        Block numbers, in order.
    """
    total = block_count(size)
    drawn = sorted(generator.sample(range(total), min(total, samples * _OVERSAMPLING)))
    unchanged = list(_outside(drawn, changed))
    if len(unchanged) > samples:
        unchanged = sorted(generator.sample(unchanged, samples))
    return unchanged


def audit(
    blocks: list[int],
    source: Source,
    target: DeviceTarget,
    manifest: Manifest,
    control: Control,
    meter: Meter,
) -> None:
    """Compare blocks of source and target with the manifest.

    Raises:
        BaseUntrusted: If one differs on either side.
    """

    def compare(block: int) -> int:
        control.check()
        buffer = Buffer(BLOCK)
        length = min(BLOCK, target.size - block * BLOCK)
        view = buffer.view[:length]
        expected = manifest.digests(block, 1)
        source.read_into(block * BLOCK, view, control.stopping)
        _expect(digest_blocks(buffer, 0, length), expected, block, "source")
        target.read_into(block * BLOCK, view)
        _expect(digest_blocks(buffer, 0, length), expected, block, "target")
        return length

    with ThreadPoolExecutor(min(_MOST_THREADS, max(2, source.parallel_reads)), "audit") as pool:
        for length in pool.map(compare, blocks):
            meter.done(length)
            meter.report()


def _outside(blocks: list[int], ranges: Iterable[Range]) -> Iterator[int]:
    remaining = iter(ranges)
    current = next(remaining, None)
    for block in blocks:
        while current is not None and current.end <= block * BLOCK:
            current = next(remaining, None)
        if current is None or block * BLOCK < current.offset:
            yield block


def _expect(found: bytes, expected: bytes, block: int, side: str) -> None:
    if found != expected:
        raise BaseUntrusted(
            f"The block at byte {block * BLOCK} is said to be unchanged, but the {side} differs.",
            hint="This disk is compared as a whole instead.",
        )
