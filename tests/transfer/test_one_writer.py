"""One writer per disk: the newest one wins, the older one stops before its next write."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from models.errors import DiskBusy, StateCorrupt, Superseded
from tests.transfer.disks import MIB, session, write_sparse
from tests.waiting import wait_until
from transfer import (
    Control,
    DeviceTarget,
    DiskSession,
    FileSource,
    Progress,
    RoundPlan,
    RoundResult,
    open_session,
)
from transfer.lock import WriterLock

SIZE = 32 * MIB
PLAN = RoundPlan(1, "one", extent_bytes=MIB, in_flight_bytes=4 * MIB)


class SlowRound(threading.Thread):
    """A round under way at 8 MiB per second, in a thread as an activity has it."""

    def __init__(self, opened: DiskSession, source: FileSource) -> None:
        super().__init__()
        self.opened = opened
        self.source = source
        self.control = Control(8 * MIB)
        self.progress: Progress | None = None
        self.error: BaseException | None = None
        self.result: RoundResult | None = None

    def watch(self, progress: Progress) -> None:
        """Keep the last report."""
        self.progress = progress

    def run(self) -> None:
        """Apply the round, then let go of the disk whatever happened."""
        try:
            with self.opened:
                self.result = self.opened.apply_round(
                    PLAN, self.source, self.source.allocated, self.control, self.watch
                )
        except BaseException as error:
            self.error = error


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    """A source full of data."""
    content = random.Random(8).randbytes(SIZE)
    return FileSource(write_sparse(tmp_path / "source", content))


def started(tmp_path: Path, source: FileSource) -> SlowRound:
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    slow = SlowRound(session(tmp_path, target, SIZE), source)
    slow.start()
    wait_until(lambda: slow.progress and slow.progress.bytes_written, 10)
    return slow


def test_a_newer_session_takes_over_and_finishes_the_round(
    tmp_path: Path, source: FileSource
) -> None:
    slow = started(tmp_path, source)
    with session(tmp_path, tmp_path / "target", SIZE) as newer:
        assert newer.status().generation == 2
        slow.join(10)
        assert isinstance(slow.error, Superseded)
        result = newer.apply_round(PLAN, source, source.allocated)
        assert result.resumed
        assert result.bytes_recopied <= PLAN.in_flight_bytes
    assert (tmp_path / "target").read_bytes() == source.path.read_bytes()


def test_a_held_writer_is_superseded_too(tmp_path: Path, source: FileSource) -> None:
    slow = started(tmp_path, source)
    slow.control.pause()
    with session(tmp_path, tmp_path / "target", SIZE):
        slow.join(10)
        assert isinstance(slow.error, Superseded)


def test_an_older_session_writes_nothing_once_a_newer_one_asked(tmp_path: Path) -> None:
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    source = FileSource(write_sparse(tmp_path / "source", b"x" * SIZE))
    with session(tmp_path, target, SIZE) as older:
        with pytest.raises(DiskBusy, match="disk-1"):
            open_session(
                tmp_path / "state",
                "disk-1",
                "run-1",
                DeviceTarget(target, SIZE),
                wait_for_lock_seconds=0.1,
            )
        with pytest.raises(Superseded):
            older.apply_round(PLAN, source, source.allocated)
        with pytest.raises(Superseded):
            older.roll_back()
    assert target.read_bytes() == bytes(SIZE)
    source.close()


def test_of_two_that_wait_only_the_last_gets_the_disk(tmp_path: Path) -> None:
    holder = WriterLock(tmp_path, 1)
    results = list[object]()

    def wait() -> None:
        try:
            results.append(WriterLock(tmp_path, 10))
        except Superseded as error:
            results.append(error)

    first = threading.Thread(target=wait)
    first.start()
    wait_until(lambda: _generation(holder) == 2, 5)
    second = threading.Thread(target=wait)
    second.start()
    wait_until(lambda: _generation(holder) == 3, 5)
    holder.close()
    first.join(10)
    second.join(10)
    locks = [one for one in results if isinstance(one, WriterLock)]
    assert len(results) == 2
    assert [lock.generation for lock in locks] == [3]
    locks[0].close()


def _generation(lock: WriterLock) -> int:
    try:
        lock.check()
    except Superseded as error:
        return int(str(error).split()[1])
    return lock.generation


def test_a_damaged_generation_is_not_guessed(tmp_path: Path) -> None:
    WriterLock(tmp_path, 1).close()
    (tmp_path / "generation").write_bytes(b"\xff" * 12)
    with pytest.raises(StateCorrupt, match="generation"):
        WriterLock(tmp_path, 1)
