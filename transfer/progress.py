"""Turns counters that threads raise into `Progress` for whoever watches."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict

from transfer.plan import Counters, Method, Phase, Progress, ProgressCallback

REPORT_SECONDS = 0.25
_RATE_WINDOW_SECONDS = 5.0


class Meter:
    """Counts a phase's bytes and reports them from the caller's own thread.

    Args:
        number: Of the round.
        method: Of the round, if the phase has one.
        phase: What is being done.
        total: Bytes of the phase, 0 if unknown.
        callback: Called by `report` at most a few times per second.
        counters: Where an earlier attempt left off.
    """

    def __init__(
        self,
        number: int,
        method: Method | None,
        phase: Phase,
        total: int,
        callback: ProgressCallback,
        counters: Counters | None = None,
    ) -> None:
        self._number = number
        self._method = method
        self._phase = phase
        self._total = total
        self._callback = callback
        self._lock = threading.Lock()
        self.counters = Counters()
        if counters is not None:
            self.counters.add(counters)
        self.in_flight = 0
        self._points: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._moved = 0
        self._reported_at = 0.0

    def add(self, counters: Counters, moved: int = 0) -> None:
        """Count bytes; `moved` are those the rate is made of."""
        with self._lock:
            self.counters.add(counters)
            self._moved += moved

    def done(self, length: int) -> None:
        """Count bytes of a phase that has nothing else to count."""
        self.add(Counters(bytes_done=length), length)

    def report(self, *, now: bool = False) -> None:
        """Call the callback if it is due, or `now`."""
        time_now = time.monotonic()
        if not now and time_now - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = time_now
        with self._lock:
            self._points.append((time_now, self._moved))
            while len(self._points) > 2 and time_now - self._points[0][0] > _RATE_WINDOW_SECONDS:
                self._points.popleft()
            since, before = self._points[0]
            seconds = time_now - since
            rate = (self._moved - before) / seconds if seconds > 0 else 0.0
            progress = Progress(
                round=self._number,
                method=self._method,
                phase=self._phase,
                bytes_total=self._total,
                rate_bytes_per_second=rate,
                in_flight=self.in_flight,
                **asdict(self.counters),
            )
        self._callback(progress)
