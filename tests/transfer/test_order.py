"""Old content is durable before it is overwritten; new content is durable before it is marked."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.transfer.disks import change, random_disk, session, write_sparse
from tests.transfer.recorded import Event, Recorder
from transfer import FileSource, RoundPlan
from transfer.blocks import BLOCK
from transfer.journal import LANES, open_lanes

SIZE = 60 * BLOCK + 1000
EXTENT = 2 * BLOCK
PLAN = RoundPlan(1, "one", extent_bytes=EXTENT, in_flight_bytes=8 * BLOCK, threads=3)


@dataclass
class Run:
    """What happened in a round, and where the old content of each block went."""

    events: list[Event]
    saved_at: dict[int, tuple[str, int, int]]
    applied: list[tuple[int, list[int]]]


@pytest.fixture(params=range(5))
def recorded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A round over a disk that differs here and there, recorded."""
    generator = random.Random(request.param)
    content = random_disk(SIZE, generator)
    wanted, _ = change(content, generator, 15)
    target = write_sparse(tmp_path / "target", content)
    source = FileSource(write_sparse(tmp_path / "source", wanted), piece_bytes=BLOCK)
    recorder = Recorder(monkeypatch)
    with session(tmp_path, target, SIZE) as opened:
        opened.apply_round(PLAN, source, source.allocated)
        monkeypatch.undo()
        directory = tmp_path / "state" / "disk-1" / "run-run-1"
        saved_at = _saved(directory)
    source.close()
    assert target.read_bytes() == wanted
    ledger = (directory / "ledger").read_bytes()
    return Run(recorder.events, saved_at, _applied(recorder.events, ledger))


def test_no_block_is_overwritten_before_its_old_content_is_durable(recorded: Run) -> None:
    durable: set[tuple[str, int, int]] = set()
    written: set[tuple[str, int, int]] = set()
    overwritten = 0
    for event in recorded.events:
        if event.file.endswith(".journal"):
            if event.kind == "write":
                written.add((event.file, event.offset, event.offset + event.length))
            else:
                durable |= {one for one in written if one[0] == event.file}
        elif event.file == "target" and event.kind == "write":
            for block in range(event.offset // BLOCK, -(-(event.offset + event.length) // BLOCK)):
                file, start, end = recorded.saved_at[block]
                assert any(f == file and s <= start and end <= e for f, s, e in durable), block
                overwritten += 1
    assert overwritten > 10


def test_no_extent_is_marked_before_its_data_is_durable(recorded: Run) -> None:
    assert sum(len(extents) for _, extents in recorded.applied) == -(-SIZE // EXTENT)
    for moment, extents in recorded.applied:
        for extent in extents:
            writes = [
                place
                for place, event in enumerate(recorded.events)
                if event.file == "target"
                and event.kind == "write"
                and event.offset // EXTENT == extent
            ]
            syncs = [
                place
                for place, event in enumerate(recorded.events[:moment])
                if event.file == "target" and event.kind == "sync"
            ]
            assert not writes or (syncs and writes[-1] < syncs[-1] < moment), extent


def _saved(directory: Path) -> dict[int, tuple[str, int, int]]:
    found = dict[int, tuple[str, int, int]]()
    for lane in open_lanes(directory, 1, 1, [0] * LANES, writable=False):
        for record in lane.records():
            for block in range(
                record.offset // BLOCK, -(-(record.offset + record.length) // BLOCK)
            ):
                assert block not in found, "a block is saved once"
                found[block] = (lane.path.name, record.content_at - 1, record.end)
        lane.close()
    return found


def _applied(events: list[Event], ledger: bytes) -> list[tuple[int, list[int]]]:
    """Moments of the ledger's lines about extents, with the extents."""
    found = list[tuple[int, list[int]]]()
    for moment, event in enumerate(events):
        if event.file == "ledger" and event.kind == "write":
            line = json.loads(ledger[event.offset + 9 : event.offset + event.length])
            if line["event"] == "applied":
                extents = [f + n for f, count in line["extents"] for n in range(count)]
                found.append((moment, extents))
    return found
