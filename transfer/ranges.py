"""Ranges of a disk: what changed or is allocated, brought to whole blocks and cut into extents.

A source says which byte ranges hold data and which were cleared. The engine works on whole blocks,
so data is rounded outwards (the neighbours are simply read too) and cleared ranges inwards (their
torn edges are read as data). Extents are a fixed grid over the disk: the ledger marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from transfer.blocks import BLOCK

Kind = Literal["data", "zero"]


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a disk.

    Attributes:
        offset: First byte.
        length: Bytes, more than none.
        kind: `data` is read from the source; `zero` was cleared and becomes zeros on the target.
    """

    offset: int
    length: int
    kind: Kind = "data"

    @property
    def end(self) -> int:
        """First byte after the range."""
        return self.offset + self.length


Ranges = Iterable[Range] | Callable[[], Iterable[Range]]
"""In offset order, not overlapping; passed over once per call. A callable begins the pass, so that
what it costs is only paid when it is needed."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The part of a round that lies in one extent.

    Attributes:
        index: Place in the grid.
        ranges: Whole blocks, in order, joined where they touch.
    """

    index: int
    ranges: tuple[Range, ...]


def one_pass(ranges: Ranges) -> Iterable[Range]:
    """A pass over `ranges`, which may be a callable that begins one."""
    return ranges() if callable(ranges) else ranges


def whole_blocks(ranges: Iterable[Range], size: int, *, fill: bool) -> Iterator[Range]:
    """Bring ranges to whole blocks of a disk of `size` bytes, joined where they touch.

    Args:
        ranges: In offset order, not overlapping; what lies beyond the disk is cut off.
        size: Bytes of the disk; its last block may be partial.
        fill: Whether everything not named is cleared (a full list of what is allocated), or was not
            touched (a list of changes).

    Raises:
        ValueError: If the ranges are out of order or overlap.
    """
    return _join(_fill(ranges, size) if fill else _edges(_checked(ranges, size), size))


def cut_into_extents(ranges: Iterable[Range], extent_bytes: int) -> Iterator[Extent]:
    """Cut whole-block ranges on the grid of extents; extents without any range are left out."""
    index, inside = -1, list[Range]()
    for piece in _cut(ranges, extent_bytes):
        if piece.offset // extent_bytes != index:
            if inside:
                yield Extent(index, tuple(inside))
            index, inside = piece.offset // extent_bytes, []
        inside.append(piece)
    if inside:
        yield Extent(index, tuple(inside))


def _checked(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    before = 0
    for item in ranges:
        if item.offset < before or item.length <= 0:
            raise ValueError(f"ranges must be in order and apart: {item} begins before {before}")
        before = item.end
        if item.offset < size:
            yield Range(item.offset, min(item.end, size) - item.offset, item.kind)


def _edges(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    done = 0
    for item in ranges:
        for start, end, kind in _rounded(item, size):
            start = max(start, done)
            if start < end:
                yield Range(start, end - start, kind)
                done = end


def _rounded(item: Range, size: int) -> tuple[tuple[int, int, Kind], ...]:
    outer_start, outer_end = _down(item.offset), min(_up(item.end), size)
    if item.kind == "data":
        return ((outer_start, outer_end, "data"),)
    start = _up(item.offset)
    end = item.end if item.end == size else _down(item.end)
    if start >= end:
        return ((outer_start, outer_end, "data"),)
    return ((outer_start, start, "data"), (start, end, "zero"), (end, outer_end, "data"))


def _fill(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    done = 0
    allocated = (item for item in _checked(ranges, size) if item.kind == "data")
    for item in _edges(allocated, size):
        if item.offset > done:
            yield Range(done, item.offset - done, "zero")
        yield item
        done = item.end
    if done < size:
        yield Range(done, size - done, "zero")


def _join(ranges: Iterable[Range]) -> Iterator[Range]:
    held: Range | None = None
    for item in ranges:
        if held is not None and held.end == item.offset and held.kind == item.kind:
            held = Range(held.offset, held.length + item.length, held.kind)
            continue
        if held is not None:
            yield held
        held = item
    if held is not None:
        yield held


def _cut(ranges: Iterable[Range], extent_bytes: int) -> Iterator[Range]:
    for item in ranges:
        offset = item.offset
        while offset < item.end:
            stop = min(item.end, (offset // extent_bytes + 1) * extent_bytes)
            yield Range(offset, stop - offset, item.kind)
            offset = stop


def _down(offset: int) -> int:
    return offset // BLOCK * BLOCK


def _up(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK
