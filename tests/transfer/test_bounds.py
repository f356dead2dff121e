"""What is bounded: memory by configuration, space by content, work by the delta."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.errors import SourceUnavailable
from tests.transfer.disks import MIB, FailingSource, allocated, session, write_sparse
from transfer import FileSource, Progress, Range, RoundPlan
from transfer.blocks import BLOCK

LOG = logging.getLogger(__name__)
TIB = 1024 * 1024 * MIB


def test_a_sparse_disk_of_a_tebibyte_takes_little_memory_time_and_space(tmp_path: Path) -> None:
    generator = random.Random(6)
    written = 0
    for name in ("source", "target"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(TIB)
            for place in generator.sample(range(TIB // MIB), 100):
                os.pwrite(file.fileno(), generator.randbytes(MIB), place * MIB)
                written += MIB
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "tests.transfer.memory_process", str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    bytes_written, peak_mib = (int(word) for word in ran.stdout.split())
    LOG.info("1 TiB: %d MiB peak, %.1f s", peak_mib, time.monotonic() - started)
    assert bytes_written == 100 * MIB
    assert peak_mib < 256
    assert allocated(tmp_path / "target") <= 101 * MIB
    state = tmp_path / "state" / "disk-1"
    assert sum(allocated(path) for path in state.rglob("*") if path.is_file()) < 16 * MIB


def test_a_new_disk_costs_no_journal_and_stays_sparse(tmp_path: Path) -> None:
    size = 256 * MIB
    target = write_sparse(tmp_path / "target", b"")
    os.truncate(target, size)
    source = FileSource(_sparse_source(tmp_path, size))
    with session(tmp_path, target, size) as opened:
        plan = RoundPlan(1, "one", method="full", new_disk=True)
        seen = list[Progress]()
        result = opened.apply_round(plan, source, source.allocated, progress=seen.append)
        assert seen[-1].bytes_done == seen[-1].bytes_total == result.bytes_done == size
        assert result.bytes_written == 12 * MIB
        assert result.journal_bytes < MIB
        assert allocated(target) <= 13 * MIB
        opened.verify_all(source=source)
        opened.roll_back()
        assert allocated(target) == 0
    source.close()


def _sparse_source(tmp_path: Path, size: int) -> Path:
    """12 MiB of data, and 8 MiB of zeros that are written out."""
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(size)
        os.pwrite(file.fileno(), random.Random(7).randbytes(12 * MIB), 40 * MIB)
        os.pwrite(file.fileno(), bytes(8 * MIB), 100 * MIB)
    return path


def test_the_root_after_a_resumed_round_covers_what_came_before(tmp_path: Path) -> None:
    """16 GiB have four upper nodes in the manifest: two of them are of the attempt that failed."""
    size = 16 * 1024 * MIB
    source_path = write_sparse(tmp_path / "source", b"")
    os.truncate(source_path, size)
    with source_path.open("r+b") as file:
        for place in range(8):
            os.pwrite(file.fileno(), random.Random(place).randbytes(MIB), place * 2048 * MIB)
    roots = set[str]()
    for run, reads in (("straight", 1000), ("resumed", 70)):
        target = write_sparse(tmp_path / f"target-{run}", b"")
        os.truncate(target, size)
        source = FailingSource(source_path, reads, SourceUnavailable("the wire is cut"))
        plan = RoundPlan(1, "one", extent_bytes=MIB, in_flight_bytes=2 * MIB)
        (tmp_path / run).mkdir()
        with session(tmp_path / run, target, size) as opened:
            if run == "resumed":
                with pytest.raises(SourceUnavailable):
                    opened.apply_round(plan, source, source.allocated)
        whole = FileSource(source_path)
        with session(tmp_path / run, target, size) as opened:
            roots.add(opened.apply_round(plan, whole, whole.allocated).root)
            opened.verify_all(source=whole, ranges=whole.allocated)
        whole.close()
        source.close()
    assert len(roots) == 1


def test_a_hole_in_the_source_becomes_a_hole_in_the_target(tmp_path: Path) -> None:
    size = 64 * MIB
    target = tmp_path / "target"
    original = random.Random(9).randbytes(size)
    target.write_bytes(original)
    source = FileSource(write_sparse(tmp_path / "source", bytes(size)))
    with session(tmp_path, target, size) as opened:
        seen = list[Progress]()
        plan = RoundPlan(1, "one")
        result = opened.apply_round(plan, source, source.allocated, progress=seen.append)
        assert result.bytes_zeroed == size
        assert seen[-1].bytes_done == seen[-1].bytes_total == result.bytes_done == size
        assert result.bytes_read == 0
        assert allocated(target) == 0
        opened.roll_back()
    assert target.read_bytes() == original
    source.close()


def test_a_delta_reads_and_writes_the_delta_whatever_the_disk(tmp_path: Path) -> None:
    size = 64 * MIB
    content = bytearray(random.Random(10).randbytes(size))
    target = tmp_path / "target"
    target.write_bytes(content)
    source = FileSource(write_sparse(tmp_path / "source", bytes(content)))
    with session(tmp_path, target, size) as opened:
        opened.apply_round(RoundPlan(1, "one"), source, source.allocated)
        content[5 * MIB + 3] ^= 1
        after = FileSource(write_sparse(tmp_path / "after", bytes(content)))
        plan = RoundPlan(2, "two", "one", "changed-ranges", audit_samples=4)
        result = opened.apply_round(plan, after, [Range(5 * MIB + 3, 1)])
        assert result.bytes_read == result.bytes_written == BLOCK
        assert opened.verify_round(2).bytes == BLOCK
        after.close()
    assert target.read_bytes() == content
    source.close()
