"""Ranges come out as whole blocks that say exactly what the given ones said."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.blocks import BLOCK
from transfer.ranges import Range, cut_into_extents, passes, whole_blocks

SIZE = 10 * BLOCK + 700


@st.composite
def ordered_ranges(draw: st.DrawFn) -> list[Range]:
    """Ranges in order and apart, some of them beyond the end of the disk."""
    points = sorted(draw(st.sets(st.integers(0, SIZE + BLOCK), max_size=16)))
    pairs = zip(points[::2], points[1::2], strict=False)
    kinds = st.sampled_from(("data", "zero"))
    return [Range(start, end - start, draw(kinds)) for start, end in pairs]


@given(ordered_ranges())
def test_changes_are_covered_and_only_their_own_blocks_are_touched(
    given_ranges: list[Range],
) -> None:
    found = list(whole_blocks(given_ranges, SIZE, fill=False))
    data = {b for r in found if r.kind == "data" for b in range(r.offset, r.end)}
    zero = {b for r in found if r.kind == "zero" for b in range(r.offset, r.end)}
    said_zero = {b for r in given_ranges if r.kind == "zero" for b in range(r.offset, r.end)}
    said = {b for r in given_ranges for b in range(r.offset, min(r.end, SIZE))}
    assert said <= data | zero
    assert zero <= said_zero, "only what was cleared as a whole becomes zeros unread"
    assert not data & zero
    assert {b // BLOCK for b in data | zero} == {b // BLOCK for b in said}


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


def test_a_one_shot_iterator_is_refused_because_rounds_pass_twice() -> None:
    with pytest.raises(TypeError, match="twice"):
        passes(iter([Range(0, 1)]))
    again = passes([Range(0, 1)])
    assert list(again()) == list(again())
