"""A round whose state lies on a small disk: `python -m tests.transfer.full_disk_process DIR`.

Runs in a mount namespace of its own, so that the small disk vanishes with the process.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import JournalFull
from tests.transfer.disks import MIB, session
from transfer import FileSource, RoundPlan

SIZE = 16 * MIB
PLAN = RoundPlan(1, "one", extent_bytes=MIB, in_flight_bytes=2 * MIB)


def main(directory: str, small: str) -> None:
    """Fill the small disk; then make room and go on, and once more but go back."""
    place = Path(directory)
    (place / "state").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={small}", "none", str(place / "state")]
    subprocess.run(command, check=True)
    generator = random.Random(4)
    original, wanted = generator.randbytes(SIZE), generator.randbytes(SIZE)
    (place / "target").write_bytes(original)
    (place / "source").write_bytes(wanted)
    source = FileSource(place / "source")

    _fills(place, source)
    with session(place, place / "target", SIZE) as opened:
        opened.roll_back()
    assert (place / "target").read_bytes() == original, "rolled back on the full disk"

    _fills(place, source)
    subprocess.run(["mount", "-o", "remount,size=64m", str(place / "state")], check=True)
    with session(place, place / "target", SIZE) as opened:
        result = opened.apply_round(PLAN, source, source.allocated)
        assert result.resumed
        assert (place / "target").read_bytes() == wanted, "went on once there was room"
        opened.roll_back()
    assert (place / "target").read_bytes() == original


def _fills(place: Path, source: FileSource) -> None:
    with session(place, place / "target", SIZE) as opened, pytest.raises(JournalFull, match="full"):
        opened.apply_round(PLAN, source, source.allocated)


if __name__ == "__main__":
    main(*sys.argv[1:])
