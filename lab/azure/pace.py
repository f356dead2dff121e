"""Slows the export of disks down to a configured rate, shared by all connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from lab.azure.config import Config

MIB = 1024 * 1024
BURST_SECONDS = 0.1  # how much unused time may be made up for at once


class Pace:
    """Lets pieces of bodies pass no faster than the configuration says at that moment."""

    def __init__(self, config: Config) -> None:
        """``config.export_mib_per_second`` is read for every piece; 0 means without limit."""
        self._config = config
        self._lock = threading.Lock()
        self._free_at = 0.0  # when, on the monotonic clock, all bytes let through are paid for

    def keep(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        """``pieces``, each at its time."""
        for piece in pieces:
            rate = self._config.export_mib_per_second * MIB
            if rate > 0:
                time.sleep(self._reserve(len(piece) / rate))
            yield piece

    def _reserve(self, seconds: float) -> float:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BURST_SECONDS) + seconds
            return max(0.0, self._free_at - now)
