"""What the engine does when something is not as it should be: it stops, says so, and keeps all."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from models.errors import (
    BaseUnavailable,
    BaseUntrusted,
    DeviceFailed,
    DiskMismatch,
    SourceChanged,
    SourceUnavailable,
    StateCorrupt,
    VerificationFailed,
)
from tests.transfer.disks import MIB, FailingSource, session, write_sparse
from transfer import DeviceTarget, DiskSession, FileSource, Range, RoundPlan, open_session
from transfer.blocks import BLOCK
from transfer.runs import known_runs

SIZE = 8 * MIB + 100
PLAN = RoundPlan(1, "one", extent_bytes=4 * BLOCK, in_flight_bytes=16 * BLOCK)


class Site:
    """A source and a target that differ everywhere."""

    def __init__(self, directory: Path) -> None:
        generator = random.Random(11)
        self.directory = directory
        self.original = generator.randbytes(SIZE)
        self.wanted = generator.randbytes(SIZE)
        self.target = write_sparse(directory / "target", self.original)
        self.source = FileSource(write_sparse(directory / "source", self.wanted))

    def open(self) -> DiskSession:
        """Take the disk."""
        return session(self.directory, self.target, SIZE)

    def apply(self, opened: DiskSession) -> None:
        """Bring the first round."""
        opened.apply_round(PLAN, self.source, self.source.allocated)

    def apply_half(self) -> None:
        """Bring the first round half way."""
        failing = FailingSource(self.source.path, 70, SourceUnavailable("the wire is cut"))
        with self.open() as opened, pytest.raises(SourceUnavailable):
            opened.apply_round(PLAN, failing, failing.allocated)
        failing.close()

    @property
    def state(self) -> Path:
        """Of the run."""
        return self.directory / "state" / "disk-1" / "run-run-1"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Fresh disks."""
    return Site(tmp_path)


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        old = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([old[0] ^ 255]), offset)


def test_a_change_that_the_delta_lacks_is_found_before_anything_is_written(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
        later = bytearray(site.wanted)
        later[: SIZE // 2] = bytes(SIZE // 2)
        source = FileSource(write_sparse(site.directory / "later", bytes(later)))
        plan = RoundPlan(2, "two", "one", "changed-ranges", audit_seed=1)
        with pytest.raises(BaseUntrusted, match="source differs"):
            opened.apply_round(plan, source, [Range(0, 10)])
        assert site.target.read_bytes() == site.wanted
        assert opened.status().open_round is None
        again = RoundPlan(2, "two", "one", "compare")
        opened.apply_round(again, source, source.allocated)
        assert site.target.read_bytes() == later
        source.close()


def test_a_target_that_was_changed_behind_our_back_is_found_by_the_audit(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
    with site.target.open("r+b") as file:
        file.write(bytes(SIZE // 2))
    plan = RoundPlan(2, "two", "one", "changed-ranges", audit_seed=1)
    with site.open() as opened, pytest.raises(BaseUntrusted, match="target differs"):
        opened.apply_round(plan, site.source, [])


def test_a_damaged_block_is_found_by_verification(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
        damage(site.target, 3 * MIB)
        with pytest.raises(VerificationFailed, match=str(3 * MIB)):
            opened.verify_round(1)
        with pytest.raises(VerificationFailed, match=str(3 * MIB)):
            opened.verify_all()


class LyingTarget(DeviceTarget):
    """A disk that stores something else than what it was given, or does not zero."""

    def write(self, offset: int, view: memoryview) -> None:
        """Write with one bit turned."""
        content = bytearray(view)
        content[-1] ^= 1
        super().write(offset, memoryview(content))

    def zero(self, offset: int, length: int) -> None:
        """Leave everything as it was."""


@pytest.mark.parametrize("what", ["data", "zeros"])
def test_a_device_that_stores_something_else_stops_the_round(site: Site, what: str) -> None:
    wanted = site.wanted if what == "data" else bytes(SIZE)
    source = FileSource(write_sparse(site.directory / "other", wanted))
    lying = LyingTarget(site.target, SIZE)
    opened = open_session(site.directory / "state", "disk-1", "run-1", lying)
    with opened, pytest.raises(VerificationFailed, match="not what was written"):
        opened.apply_round(PLAN, source, source.allocated)
    with site.open() as opened:
        assert opened.status().rounds == ()
        opened.roll_back()
    assert site.target.read_bytes() == site.original
    source.close()


def test_a_source_that_is_not_the_last_rounds_is_found_by_verification(site: Site) -> None:
    other = FileSource(write_sparse(site.directory / "other", site.original))
    with site.open() as opened:
        site.apply(opened)
        opened.verify_all(source=site.source)
        with pytest.raises(VerificationFailed, match="source"):
            opened.verify_all(source=other)
    other.close()


def test_what_is_not_durable_cannot_be_verified(site: Site) -> None:
    with site.open() as opened:
        with pytest.raises(BaseUnavailable):
            opened.verify_round(1)
        with pytest.raises(BaseUnavailable):
            opened.verify_all()


def test_a_source_of_another_size_is_refused(site: Site) -> None:
    larger = FileSource(write_sparse(site.directory / "larger", bytes(SIZE + 512)))
    with site.open() as opened, pytest.raises(SourceChanged, match=str(SIZE + 512)):
        opened.apply_round(PLAN, larger, [])
    larger.close()


def test_a_disk_with_data_is_not_taken_for_a_new_one(site: Site) -> None:
    plan = RoundPlan(1, "one", method="full", new_disk=True)
    with site.open() as opened, pytest.raises(DiskMismatch, match="holds data"):
        opened.apply_round(plan, site.source, site.source.allocated)
    assert site.target.read_bytes() == site.original


def test_a_source_that_shrinks_stops_the_round_and_loses_nothing(site: Site) -> None:
    os.truncate(site.source.path, SIZE // 2)
    with site.open() as opened:
        with pytest.raises(SourceChanged, match="ends at byte"):
            opened.apply_round(PLAN, site.source, [Range(0, SIZE)])
        opened.roll_back()
    assert site.target.read_bytes() == site.original


class TearingTarget(DeviceTarget):
    """A disk that fails within a block, as a write that was cut off by a kill leaves it."""

    def __init__(self, path: Path, size: int, writes_before_failure: int) -> None:
        super().__init__(path, size)
        self._left = writes_before_failure

    def write(self, offset: int, view: memoryview) -> None:
        """Write, or once write a part that ends within a block."""
        self._left -= 1
        if self._left == -1:
            super().write(offset, view[: BLOCK // 2])
            raise DeviceFailed("the disk failed")
        super().write(offset, view)


@pytest.mark.parametrize("writes", [0, 1, 3, 9, 20])
def test_a_torn_block_keeps_the_old_content_that_was_saved_first(site: Site, writes: int) -> None:
    tearing = TearingTarget(site.target, SIZE, writes)
    opened = open_session(site.directory / "state", "disk-1", "run-1", tearing)
    with opened, pytest.raises(DeviceFailed):
        site.apply(opened)
    with site.open() as opened:
        site.apply(opened)
        assert site.target.read_bytes() == site.wanted
        opened.roll_back()
    assert site.target.read_bytes() == site.original


def test_a_torn_line_at_the_end_of_the_ledger_is_cut_off(site: Site) -> None:
    site.apply_half()
    with (site.state / "ledger").open("ab") as file:
        file.write(b'12345678 {"event":"appl')
    with site.open() as opened:
        site.apply(opened)
        assert site.target.read_bytes() == site.wanted
        opened.roll_back()
    assert site.target.read_bytes() == site.original


def test_a_damaged_line_within_the_ledger_stops_everything(site: Site) -> None:
    site.apply_half()
    before = site.target.read_bytes()
    damage(site.state / "ledger", 30)
    with pytest.raises(StateCorrupt, match="ledger is damaged"):
        site.open()
    assert site.target.read_bytes() == before


@pytest.mark.parametrize(
    "tail", [b"FBJ1DATA", b"\0" * 100, b"FBJ1" + b"\xff" * 60], ids=["cut", "zeros", "garbage"]
)
def test_a_torn_record_at_the_end_of_the_journal_is_cut_off(site: Site, tail: bytes) -> None:
    site.apply_half()
    for lane in site.state.glob("*.journal"):
        with lane.open("ab") as file:
            file.write(tail)
    with site.open() as opened:
        site.apply(opened)
        assert site.target.read_bytes() == site.wanted
        opened.roll_back()
    assert site.target.read_bytes() == site.original


def test_a_damaged_journal_is_reported_and_kept(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
    lane = next(site.state.glob("*.lane-0.journal"))
    damage(lane, 3 * BLOCK)
    with site.open() as opened, pytest.raises(StateCorrupt, match="lane-0"):
        opened.roll_back()
    assert lane.exists()


def test_a_journal_shorter_than_the_ledger_says_is_reported(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
    lane = next(site.state.glob("*.lane-1.journal"))
    os.truncate(lane, lane.stat().st_size - BLOCK)
    with site.open() as opened, pytest.raises(StateCorrupt, match="the ledger knows of"):
        opened.roll_back()


def test_a_disk_that_was_resized_within_a_run_is_refused(site: Site) -> None:
    site.apply_half()
    os.truncate(site.target, SIZE * 2)
    with pytest.raises(DiskMismatch, match="had"):
        session(site.directory, site.target, SIZE * 2)
    os.truncate(site.target, SIZE)
    with site.open() as opened:
        opened.roll_back()
    assert site.target.read_bytes() == site.original


def test_another_run_finds_an_unfinished_manifest_and_compares(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
    later = RoundPlan(2, "two", extent_bytes=4 * BLOCK, in_flight_bytes=16 * BLOCK)
    failing = FailingSource(site.directory / "target", 20, SourceUnavailable("cut"))
    with site.open() as opened, pytest.raises(SourceUnavailable):
        opened.apply_round(later, failing, failing.allocated)
    failing.close()
    with session(site.directory, site.target, SIZE, "run-2") as opened:
        assert not opened.status().manifest_complete
        plan = RoundPlan(1, "three", "one", "changed-ranges")
        with pytest.raises(BaseUnavailable):
            opened.apply_round(plan, site.source, [])
        opened.apply_round(RoundPlan(1, "three"), site.source, site.source.allocated)
        assert opened.status().manifest_complete


def test_discarding_keeps_the_manifest_as_the_base_of_the_way_back(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
        root = opened.status().manifest_root
        opened.discard()
    assert not site.state.exists()
    with session(site.directory, site.target, SIZE, "run-2") as opened:
        assert opened.status().manifest_root == root
        plan = RoundPlan(1, "two", "one", "changed-ranges")
        opened.apply_round(plan, site.source, [])


def test_a_journal_that_is_needed_is_not_discarded(site: Site) -> None:
    site.apply_half()
    with site.open() as opened, pytest.raises(StateCorrupt, match="still needed"):
        opened.discard()


def test_state_is_the_owners_alone(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
        files = [path for path in (site.directory / "state").rglob("*") if path.is_file()]
        assert len(files) >= 7
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("name", ["..", "a/b", "../../etc", "."])
def test_names_cannot_leave_the_state_directory(tmp_path: Path, name: str) -> None:
    target = write_sparse(tmp_path / "target", bytes(BLOCK))
    with open_session(tmp_path / "state", name, name, DeviceTarget(target, BLOCK)):
        inside = [path for path in (tmp_path / "state").iterdir() if path.is_dir()]
    assert len(inside) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "target"]


def test_a_run_of_the_same_name_starts_afresh_after_a_discard(site: Site) -> None:
    for _ in range(2):
        with site.open() as opened:
            site.apply(opened)
            assert site.target.read_bytes() == site.wanted
            opened.roll_back()
            assert site.target.read_bytes() == site.original
            opened.discard()
        assert list(known_runs(site.directory / "state")) == []


def test_a_journal_of_nobody_is_not_taken_for_this_rounds(site: Site) -> None:
    with site.open() as opened:
        site.apply(opened)
        foreign = {lane.name: lane.read_bytes() for lane in site.state.glob("*.journal")}
        opened.roll_back()
        opened.discard()
    later = site.original[::-1]
    site.target.write_bytes(later)
    with site.open() as opened:
        for name, content in foreign.items():
            (site.state / name).write_bytes(content)
        site.apply(opened)
        opened.roll_back()
    assert site.target.read_bytes() == later
