"""The engine in a process of its own, to be killed: `python -m tests.transfer.engine_process`.

Arguments: operation (`round` or `rollback`), state directory, target, source, bytes per second.
Says `begun` once the disk is taken and `done` with the bytes copied again at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transfer import Control, DeviceTarget, FileSource, RoundPlan, open_session

MIB = 1024 * 1024
IN_FLIGHT_BYTES = 8 * MIB
PLAN = RoundPlan(
    1, "snapshot-1", method="compare", extent_bytes=MIB, in_flight_bytes=IN_FLIGHT_BYTES
)


def main(operation: str, state: str, target: str, source: str, bytes_per_second: str) -> None:
    """Run one operation to its end, if nobody kills it."""
    size = Path(target).stat().st_size
    control = Control(int(bytes_per_second) or None)
    with open_session(state, "disk-1", "run-1", DeviceTarget(target, size)) as session:
        say("begun")
        if operation == "round":
            opened = FileSource(source)
            result = session.apply_round(PLAN, opened, opened.allocated, control)
            say(f"done {result.bytes_recopied}")
        else:
            say(f"done {session.roll_back(0, control).blocks}")


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
