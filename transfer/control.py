"""What a person may change while a copy runs: stop it, hold it, limit its rate.

One `Control` is shared by the activity that hears the orders and by the engine's threads, which
ask it between pieces. A change takes effect within one piece (a few MiB).
"""

from __future__ import annotations

import threading
import time

from models.errors import Stopped

BURST_SECONDS = 0.25
"""How much unused allowance may be saved up: for a thread's turn, too little for a surge."""

LOOK_SECONDS = 0.2
"""How often a held or slowed thread looks whether the round was given up for another reason."""


class Control:
    """Thread-safe switches of a running copy.

    Args:
        bytes_per_second: The limit of what is read from the source; None for no limit.
        stopping: Set by `stop`, or by whoever shares it, to stop the copy.
    """

    def __init__(
        self, bytes_per_second: int | None = None, *, stopping: threading.Event | None = None
    ) -> None:
        self.stopping = stopping or threading.Event()
        self._changed = threading.Condition()
        self._paused = False
        self._rate = bytes_per_second
        self._allowance = 0.0
        self._counted_at = time.monotonic()

    @property
    def paused(self) -> bool:
        """Whether the copy is held."""
        return self._paused

    @property
    def limit(self) -> int | None:
        """Bytes per second, or None."""
        return self._rate

    def stop(self) -> None:
        """Stop for good: every waiting and every following call raises `Stopped`."""
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()

    def pause(self) -> None:
        """Hold the copy before its next piece."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Let a held copy go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def set_limit(self, bytes_per_second: int | None) -> None:
        """Limit the rate at which the source is read, from now on."""
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"a limit must be above zero, not {bytes_per_second}; None lifts it")
        with self._changed:
            self._refill()
            self._rate = bytes_per_second
            self._allowance = min(self._allowance, 0.0)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise `Stopped` if the copy was told to stop."""
        if self.stopping.is_set():
            raise Stopped("The copy was told to stop.")

    def wait_if_paused(self, given_up: threading.Event | None = None) -> None:
        """Return once the copy is not held, or `given_up` is set; raises `Stopped`."""
        with self._changed:
            while self._paused and not self._over(given_up):
                self._changed.wait(LOOK_SECONDS)
        self.check()

    def throttle(self, length: int, given_up: threading.Event | None = None) -> None:
        """Return once `length` bytes may be read, or `given_up` is set; raises `Stopped`.

        A piece may overdraw the allowance, the next one waits until the debt is paid: pieces larger
        than one second's allowance go through too.
        """
        with self._changed:
            while self._rate is not None and not self._over(given_up):
                self._refill()
                if self._allowance >= 0:
                    self._allowance -= length
                    break
                self._changed.wait(min(LOOK_SECONDS, -self._allowance / self._rate))
        self.check()

    def _over(self, given_up: threading.Event | None) -> bool:
        return self.stopping.is_set() or (given_up is not None and given_up.is_set())

    def _refill(self) -> None:
        now = time.monotonic()
        if self._rate is not None:
            saved = self._allowance + (now - self._counted_at) * self._rate
            self._allowance = min(saved, self._rate * BURST_SECONDS)
        self._counted_at = now
