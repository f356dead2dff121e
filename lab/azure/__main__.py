"""``python -m lab.azure --dir DIR``: run the Azure emulator until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from lab.azure.emulator import READY_FILE, AlreadyRunningError, Emulator


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.azure",
        description="An emulator of Azure Resource Manager for compute and of managed-disk export.",
        epilog="Addresses and credentials are in DIR/azure.ready while it runs.",
    )
    parser.add_argument("--dir", type=Path, required=True, help="where state and bytes are kept")
    parser.add_argument("--verbose", action="store_true", help="log more")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    directory = arguments.dir.resolve()
    try:
        emulator = Emulator(directory)
    except (AlreadyRunningError, OSError) as error:
        logging.getLogger(__name__).error("cannot start: %s", error)
        return 1
    emulator.start()
    logging.getLogger(__name__).info("ready; see %s", directory / READY_FILE)
    stop.wait()
    emulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
