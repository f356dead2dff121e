"""Waiting that ends: with a deadline, and at once when the caller is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from models.errors import Stopped
from platforms.base import Call


def pause(call: Call, seconds: float, waiting_for: str) -> None:
    """Let time pass.

    Raises:
        Stopped: The caller was told to stop.
    """
    if call.stop.wait(seconds):
        raise Stopped(f"Stopped while waiting for {waiting_for}.")


def wait_for(
    condition: Callable[[], bool],
    call: Call,
    *,
    seconds: float,
    interval_seconds: float,
    waiting_for: str,
) -> bool:
    """Whether `condition` holds before the time is up; it is asked at least once.

    Raises:
        Stopped: The caller was told to stop.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        pause(call, min(interval_seconds, left), waiting_for)
    return True
