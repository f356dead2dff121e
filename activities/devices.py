"""Where a disk that the hypervisor attached appears on this mover, and whether it is that one."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from models.errors import DiskMismatch, DiskMissing, Stopped
from models.machine import AttachedDisk

_LOOK_SECONDS = 0.1


def find_device(
    directory: Path, disk: AttachedDisk, timeout_seconds: float, stop: threading.Event
) -> Path:
    """The device of an attached disk, waited for until udev has made its link.

    Args:
        directory: Holds a link per slot (`scsi-0-3`) and, where the system makes them, a link per
            disk identifier below `by-id`.
        disk: As the hypervisor attached it.
        timeout_seconds: How long the link may take to appear.
        stop: Ends the wait.

    Raises:
        DiskMissing: No such link in time.
        DiskMismatch: Slot and identifier lead to different devices.
    """
    link = directory / disk.slot
    deadline = time.monotonic() + timeout_seconds
    while not link.exists():
        if stop.is_set():
            raise Stopped(f"Stopped while waiting for {link}.")
        if time.monotonic() > deadline:
            raise DiskMissing(
                f"Disk {disk.disk_id} was attached as {disk.slot} but {link} did not appear.",
                hint="See that the mover's device rules are installed (docs/first-failback.md).",
            )
        stop.wait(_LOOK_SECONDS)
    device = link.resolve()
    by_id = directory / "by-id"
    if disk.identity and by_id.is_dir():
        known = by_id / disk.identity
        if not known.exists() or known.resolve() != device:
            raise DiskMismatch(
                f"The device at {link} is not disk {disk.disk_id} of identity {disk.identity}.",
                hint="Detach what was attached to the mover by hand, then retry.",
            )
    return device
