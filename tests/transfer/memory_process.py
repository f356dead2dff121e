"""Peak memory of rounds over a large disk: `python -m tests.transfer.memory_process DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from transfer import DeviceTarget, FileSource, RoundPlan, open_session


def main(directory: str) -> None:
    """Compare, verify, roll back; then say the peak in MiB."""
    place = Path(directory)
    source = FileSource(place / "source")
    target = DeviceTarget(place / "target", source.size)
    with open_session(place / "state", "disk-1", "run-1", target) as session:
        result = session.apply_round(RoundPlan(1, "one"), source, source.allocated)
        session.verify_round(1)
        session.verify_all(source=source, ranges=source.allocated)
        session.roll_back()
    sys.stdout.write(f"{result.bytes_written} {peak_mib()}\n")


def peak_mib() -> int:
    """Of this program alone: what `getrusage` says begins with the peak of whoever forked it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
