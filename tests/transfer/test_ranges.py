"""Ranges come out as whole blocks that say exactly what the given ones said."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Stopped
from transfer.blocks import BLOCK
from transfer.control import Control
from transfer.ranges import Kind, Range, cut_into_extents, whole_blocks
from transfer.spool import RangeSpool

SIZE = 10 * BLOCK + 700
KINDS: tuple[Kind, Kind] = ("data", "zero")


@st.composite
def ordered_ranges(draw: st.DrawFn) -> list[Range]:
    """Ranges in order and apart, some of them beyond the end of the disk."""
    points = sorted(draw(st.sets(st.integers(0, SIZE + BLOCK), max_size=16)))
    pairs = zip(points[::2], points[1::2], strict=False)
    kinds = st.sampled_from(KINDS)
    return [Range(start, end - start, draw(kinds)) for start, end in pairs]


def holds(ranges: list[Range], byte: int, kind: str) -> bool:
    """Whether a range of this kind holds the byte."""
    return any(one.offset <= byte < one.end and one.kind == kind for one in ranges)


def interesting_bytes(*lists: list[Range]) -> set[int]:
    """Bytes on both sides of every border: between two of them nothing changes."""
    borders = {place for ranges in lists for one in ranges for place in (one.offset, one.end)}
    return {byte for place in borders for byte in (place - 1, place) if 0 <= byte < SIZE}


@settings(deadline=None)
@given(ordered_ranges())
def test_changes_are_covered_and_only_their_own_blocks_are_touched(
    given_ranges: list[Range],
) -> None:
    found = list(whole_blocks(given_ranges, SIZE, fill=False))
    for byte in interesting_bytes(found, given_ranges):
        read, cleared = holds(found, byte, "data"), holds(found, byte, "zero")
        said_cleared = holds(given_ranges, byte, "zero")
        assert not (read and cleared)
        assert read or cleared or not (holds(given_ranges, byte, "data") or said_cleared)
        assert said_cleared or not cleared, "only what was cleared becomes zeros unread"
    inside = [one for one in given_ranges if one.offset < SIZE]
    said = {b for r in inside for b in range(r.offset // BLOCK, -(-min(r.end, SIZE) // BLOCK))}
    touched = {b for r in found for b in range(r.offset // BLOCK, -(-r.end // BLOCK))}
    assert touched == said


@settings(deadline=None)
@given(ordered_ranges())
def test_a_full_list_covers_the_disk_once_in_order(given_ranges: list[Range]) -> None:
    found = list(whole_blocks(given_ranges, SIZE, fill=True))
    assert found[0].offset == 0
    assert found[-1].end == SIZE
    for one, after in pairwise(found):
        assert one.end == after.offset
        assert one.kind != after.kind
    data = {
        b for r in found if r.kind == "data" for b in range(r.offset // BLOCK, -(-r.end // BLOCK))
    }
    said = [r for r in given_ranges if r.kind == "data" and r.offset < SIZE]
    assert data == {
        b for r in said for b in range(r.offset // BLOCK, -(-min(r.end, SIZE) // BLOCK))
    }


@settings(deadline=None)
@given(ordered_ranges(), st.sampled_from((BLOCK, 3 * BLOCK, 16 * BLOCK)))
def test_extents_hold_the_same_ranges_cut_on_the_grid(
    given_ranges: list[Range], extent_bytes: int
) -> None:
    whole = list(whole_blocks(given_ranges, SIZE, fill=False))
    extents = list(cut_into_extents(whole, extent_bytes))
    assert [e.index for e in extents] == sorted({e.index for e in extents})
    for extent in extents:
        for one in extent.ranges:
            assert one.offset // extent_bytes == (one.end - 1) // extent_bytes == extent.index
    flat = [one for extent in extents for one in extent.ranges]
    assert sum(one.length for one in flat) == sum(one.length for one in whole)
    assert list(whole_blocks(flat, SIZE, fill=False)) == whole, "joined again, nothing is different"


@pytest.mark.parametrize(
    "ranges",
    [
        [Range(BLOCK, 10), Range(0, 10)],
        [Range(0, 100), Range(50, 100)],
        [Range(0, 0)],
    ],
)
def test_ranges_out_of_order_overlapping_or_empty_are_refused(ranges: list[Range]) -> None:
    with pytest.raises(ValueError, match="in order"):
        list(whole_blocks(ranges, SIZE, fill=False))


@given(ordered_ranges())
@settings(deadline=None)
def test_spooled_ranges_are_the_same_as_often_as_they_are_asked_for(
    given_ranges: list[Range],
) -> None:
    with TemporaryDirectory() as directory:
        spool = RangeSpool(Path(directory), iter(given_ranges), Control())
        assert list(spool) == list(spool) == given_ranges
        assert spool.total_bytes == sum(one.length for one in given_ranges)
        assert not list(Path(directory).iterdir())
        spool.close()


def test_spooling_ends_when_the_copy_is_stopped(tmp_path: Path) -> None:
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        RangeSpool(tmp_path, (Range(n * 2, 1) for n in count()), control)


def test_many_ranges_survive_the_spool(tmp_path: Path) -> None:
    ranges = [Range(number * BLOCK, BLOCK, "zero") for number in range(10_000)]
    spool = RangeSpool(tmp_path, ranges, Control())
    assert list(spool) == ranges
    spool.close()
