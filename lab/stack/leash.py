"""``python -m lab.stack.leash DIR``: kills the lab's processes when whoever holds our standard
input is gone. A supervisor that is itself killed can clean up nothing; this can."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.stack.processes import ManagedProcess
from lab.stack.supervisor import NAMES


def main() -> int:
    """Wait for the end of standard input, then kill whatever still runs; a word is a release."""
    directory = Path(sys.argv[1])
    if sys.stdin.buffer.read():
        return 0
    for name in NAMES:
        ManagedProcess(directory, name).kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
