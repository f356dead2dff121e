"""A mover killed at any instant: the round goes on or goes back, and not a byte is lost."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transfer.disks import MIB, expected_root
from tests.transfer.engine_process import IN_FLIGHT_BYTES, PLAN
from transfer import DeviceTarget, DiskSession, FileSource, open_session

LOG = logging.getLogger(__name__)
SEEDS = range(int(os.environ.get("FAILBACK_KILL_SEEDS", "20")))
SIZE = 64 * MIB + 12_345
RATE = 256 * MIB
"""Bytes per second: the round takes a quarter of a second, so that most kills hit it."""


class Disks:
    """A target that differs from its source nearly everywhere, and copies of both to look at."""

    def __init__(self, directory: Path) -> None:
        generator = random.Random(20)
        self.directory = directory
        self.original = generator.randbytes(SIZE // 2).ljust(SIZE, b"\0")
        self.wanted = bytes(8 * MIB) + generator.randbytes(SIZE - 8 * MIB)
        (directory / "original").write_bytes(self.original)
        (directory / "source").write_bytes(self.wanted)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Disks:
    """Made once: every seed works on a fresh copy of the target."""
    return Disks(tmp_path_factory.mktemp("disks"))


class Mover:
    """The engine's state and target of one seed."""

    def __init__(self, directory: Path, disks: Disks) -> None:
        self.state = directory / "state"
        self.target = directory / "target"
        self.source = disks.directory / "source"
        shutil.copy(disks.directory / "original", self.target)
        self.kills = 0

    def run_and_kill(self, operation: str, after: float, rate: int = RATE) -> bool:
        """Start an operation and kill it `after` seconds later; whether that hit it."""
        arguments = [operation, str(self.state), str(self.target), str(self.source), str(rate)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.transfer.engine_process", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        assert process.returncode in (0, -9)
        self.kills += process.returncode == -9
        return process.returncode == -9

    def open(self) -> DiskSession:
        """Take the disk in this process."""
        return open_session(self.state, "disk-1", "run-1", DeviceTarget(self.target, SIZE))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_round_goes_on_and_repeats_no_more_than_was_in_flight(
    seed: int, tmp_path: Path, disks: Disks
) -> None:
    generator = random.Random(seed)
    mover = Mover(tmp_path, disks)
    for _ in range(generator.choice((1, 1, 2))):
        if not mover.run_and_kill("round", generator.uniform(0, 0.25)):
            break
    source = FileSource(mover.source)
    with mover.open() as session:
        result = session.apply_round(PLAN, source, source.allocated)
        assert mover.target.read_bytes() == disks.wanted
        assert result.root == expected_root(disks.wanted)
        assert result.bytes_recopied <= IN_FLIGHT_BYTES * max(1, mover.kills)
        LOG.info("seed %d: %d kills, %d recopied", seed, mover.kills, result.bytes_recopied)
        session.roll_back()
    assert mover.target.read_bytes() == disks.original


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_round_is_rolled_back_though_the_rollback_is_killed_too(
    seed: int, tmp_path: Path, disks: Disks
) -> None:
    generator = random.Random(1000 + seed)
    mover = Mover(tmp_path, disks)
    mover.run_and_kill("round", generator.uniform(0.05, 0.35))
    mover.run_and_kill("rollback", generator.uniform(0, 0.1))
    started = time.monotonic()
    with mover.open() as session:
        session.roll_back()
        assert session.status().rounds == ()
        assert session.status().journal_bytes == 0
    LOG.info("seed %d: %d kills, %.2f s", seed, mover.kills, time.monotonic() - started)
    assert mover.target.read_bytes() == disks.original
