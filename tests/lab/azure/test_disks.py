"""Disks against an oracle that keeps whole copies: content, diffs, and what a kill leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from lab.disks import CLUSTER, Disk, DiskError, SnapshotView
from tests.waiting import wait_until

SIZE = 5 * CLUSTER + 1024  # bytes; the last cluster is cut short
PAGE = 512

offsets = st.integers(0, SIZE // PAGE - 1).map(lambda page: page * PAGE)
lengths = st.integers(1, 200).map(lambda pages: pages * PAGE)


class DiskAgainstCopies(RuleBasedStateMachine):
    """Every snapshot must read as the copy taken with it, whatever happens afterwards."""

    snapshots = Bundle("snapshots")

    @initialize()
    def create(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.disk = Disk.create(Path(self.directory.name) / "disk", SIZE)
        self.live = bytearray(SIZE)
        self.copies: dict[str, bytes] = {}
        # Per snapshot: the last operation on every page since it was taken (0: none).
        self.touched: dict[str, bytearray] = {}

    def _touch(self, offset: int, length: int, mark: int) -> None:
        first, last = offset // PAGE, -(-(offset + length) // PAGE)
        for pages in self.touched.values():
            pages[first:last] = bytes([mark]) * (last - first)

    @rule(offset=offsets, skew=st.integers(0, 511), length=lengths, seed=st.integers(0, 2**32))
    def write(self, offset: int, skew: int, length: int, seed: int) -> None:
        offset += skew
        content = random.Random(seed).randbytes(min(length, SIZE - offset))
        self.disk.write(offset, content)
        self.live[offset : offset + len(content)] = content
        self._touch(offset, len(content), 1)

    @rule(offset=offsets, length=lengths)
    def clear(self, offset: int, length: int) -> None:
        length = min(length, SIZE - offset)
        self.disk.clear(offset, length)
        self.live[offset : offset + length] = bytes(length)
        self._touch(offset, length, 2)

    @rule(target=snapshots)
    def snapshot(self) -> str:
        snapshot_id = self.disk.snapshot()
        self.copies[snapshot_id] = bytes(self.live)
        self.touched[snapshot_id] = bytearray(SIZE // PAGE)
        return snapshot_id

    @rule(snapshot_id=consumes(snapshots))
    def delete(self, snapshot_id: str) -> None:
        self.disk.delete_snapshot(snapshot_id)
        del self.copies[snapshot_id], self.touched[snapshot_id]

    @rule()
    def reopen(self) -> None:
        self.disk.close()
        self.disk = Disk(self.disk.directory)

    @rule(base=snapshots)
    def diff_to_a_new_snapshot(self, base: str) -> None:
        current = self.disk.snapshot()
        seen = bytearray(SIZE // PAGE)
        last_end = 0
        for start, end, cleared in self.disk.diff(base, current, 0, SIZE):
            assert last_end <= start < end
            last_end = end
            seen[start // PAGE : end // PAGE] = bytes([2 if cleared else 1]) * (
                (end - start) // PAGE
            )
        self.disk.delete_snapshot(current)
        assert seen == self.touched[base]

    @invariant()
    def everything_reads_as_its_copy(self) -> None:
        if not hasattr(self, "disk"):
            return
        assert self.disk.read(0, SIZE) == self.live
        for snapshot_id, copy in self.copies.items():
            view = self.disk.view(snapshot_id)
            assert view.read(0, SIZE) == copy
            covered = bytearray(SIZE)
            for start, end in view.allocated(0, SIZE):
                covered[start:end] = copy[start:end]
            assert covered == copy  # what is not allocated is zeros

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.close()
            self.directory.cleanup()


DiskAgainstCopies.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, print_blob=True
)
TestDiskAgainstCopies = DiskAgainstCopies.TestCase


def test_a_snapshot_of_a_large_disk_takes_milliseconds(tmp_path: Path) -> None:
    disk = Disk.create(tmp_path / "disk", 4 * 1024**3)
    for offset in range(0, 256 * 1024**2, 1024**2):
        disk.write(offset, b"x" * 65536)
    started = time.perf_counter()
    disk.snapshot()
    assert time.perf_counter() - started < 0.1
    used = sum(path.stat().st_blocks * 512 for path in disk.directory.iterdir())
    assert used < 20 * 1024**2


def test_clearing_gives_space_back(tmp_path: Path) -> None:
    disk = Disk.create(tmp_path / "disk", 1024**2)
    disk.write(0, b"x" * 1024**2)
    disk.clear(65536, 65536)
    view = disk.view(disk.snapshot())
    assert view.allocated(0, disk.size) == [(0, 65536), (131072, 1024**2)]


def test_an_image_is_adopted_with_its_holes(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.seek(1024**2)
        file.write(b"data")
        file.truncate(8 * 1024**2)
    disk = Disk.adopt(tmp_path / "disk", image, size=16 * 1024**2)
    assert disk.read(1024**2, 4) == b"data"
    assert disk.size == 16 * 1024**2
    assert (disk.directory / "live.raw").stat().st_blocks * 512 < 65536
    copy = Disk.copy_of(tmp_path / "copy", disk.view(disk.snapshot()))
    assert copy.read(0, copy.size) == disk.read(0, disk.size)
    assert (copy.directory / "live.raw").stat().st_blocks * 512 < 65536


def test_snapshots_keep_the_size_they_were_taken_at(tmp_path: Path) -> None:
    disk = Disk.create(tmp_path / "disk", 1024**2)
    snapshot_id = disk.snapshot()
    disk.resize(2 * 1024**2)
    disk.write(1024**2, b"new")
    assert disk.view(snapshot_id).size == 1024**2
    with pytest.raises(DiskError):
        disk.view(snapshot_id).read(1024**2, 1)
    with pytest.raises(DiskError):
        disk.resize(1024**2)


def test_a_snapshot_reads_the_same_while_the_disk_is_written(tmp_path: Path) -> None:
    disk = Disk.create(tmp_path / "disk", 64 * CLUSTER)
    disk.write(0, b"\1" * disk.size)
    view = disk.view(disk.snapshot())
    stop = threading.Event()

    def work() -> None:
        shuffle = random.Random(7)
        while not stop.is_set():
            disk.write(shuffle.randrange(64) * CLUSTER, b"\2" * CLUSTER)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        wait_until(lambda: _reads_ones(view) and 2 in disk.read(0, disk.size), 10)
        for _ in range(20):
            assert _reads_ones(view)
            disk.delete_snapshot(disk.snapshot())
    finally:
        stop.set()
        writer.join()


def _reads_ones(view: SnapshotView) -> bool:
    return view.read(0, view.size) == b"\1" * view.size


WRITER = """
import random, sys
from pathlib import Path
from lab.disks import CLUSTER, Disk
disk = Disk(Path(sys.argv[1]))
shuffle = random.Random(int(sys.argv[2]))
sys.stdout.write("going\\n"); sys.stdout.flush()
kept = []
while True:
    at = shuffle.randrange(disk.size // 512 - 300) * 512
    if shuffle.random() < 0.2:
        disk.clear(at, shuffle.randrange(1, 300) * 512)
    else:
        disk.write(at, shuffle.randbytes(shuffle.randrange(1, 300) * 512))
    if shuffle.random() < 0.05:
        kept.append(disk.snapshot())
    if len(kept) > 3:
        disk.delete_snapshot(kept.pop(shuffle.randrange(len(kept))))
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_leaves_old_snapshots_whole_and_no_change_unreported(
    tmp_path: Path, seed: int
) -> None:
    disk = Disk.create(tmp_path / "disk", 32 * CLUSTER)
    disk.write(0, random.Random(seed).randbytes(disk.size))
    base = disk.snapshot()
    before = disk.view(base).read(0, disk.size)
    disk.close()
    command = [sys.executable, "-c", WRITER, str(disk.directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        threading.Event().wait(0.05 + random.Random(seed).random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)

    disk = Disk(tmp_path / "disk")
    assert disk.view(base).read(0, disk.size) == before
    current = disk.snapshot()
    after = disk.view(current).read(0, disk.size)
    reported = bytearray(disk.size)
    for start, end, cleared in disk.diff(base, current, 0, disk.size):
        reported[start:end] = b"\2" * (end - start) if cleared else b"\1" * (end - start)
    changed = [n for n in range(disk.size) if before[n] != after[n]]
    assert changed, f"seed {seed}: the writer was killed before its first write"
    assert all(reported[n] for n in changed)
    assert not any(after[n] for n in range(disk.size) if reported[n] == 2)
