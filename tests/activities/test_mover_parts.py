"""Finding an attached disk, and orders that reach running copies."""

import threading
from pathlib import Path

import pytest

from activities.controls import Controls
from activities.devices import find_device
from models.calls import ControlInput
from models.errors import DiskMismatch, DiskMissing
from models.machine import AttachedDisk
from tests.waiting import wait_until

DISK = AttachedDisk(disk_id="os", slot="scsi-0-1", size_bytes=4096, identity="abc")


def disk_file(directory: Path, name: str) -> Path:
    """A file that stands for a device."""
    path = directory / name
    path.write_bytes(b"\0" * 4096)
    return path


def test_a_disk_is_found_by_slot_and_identity(tmp_path: Path) -> None:
    device = disk_file(tmp_path, "sdb")
    (tmp_path / "by-id").mkdir()
    (tmp_path / "scsi-0-1").symlink_to(device)
    (tmp_path / "by-id" / "abc").symlink_to(device)
    assert find_device(tmp_path, DISK, 1, threading.Event()) == device


def test_a_disk_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    device = disk_file(tmp_path, "sdb")
    found: list[Path] = []
    waiter = threading.Thread(
        target=lambda: found.append(find_device(tmp_path, DISK, 10, threading.Event()))
    )
    waiter.start()
    (tmp_path / "scsi-0-1").symlink_to(device)
    waiter.join(10)
    assert found == [device]


def test_a_disk_that_never_appears_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DiskMissing, match="scsi-0-1"):
        find_device(tmp_path, DISK, 0.2, threading.Event())


def test_another_disk_in_the_slot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "by-id").mkdir()
    (tmp_path / "scsi-0-1").symlink_to(disk_file(tmp_path, "sdb"))
    (tmp_path / "by-id" / "abc").symlink_to(disk_file(tmp_path, "sdc"))
    with pytest.raises(DiskMismatch, match="abc"):
        find_device(tmp_path, DISK, 1, threading.Event())


def test_a_limit_is_shared_by_the_running_copies_of_a_machine(tmp_path: Path) -> None:
    controls = Controls(tmp_path)
    asked = ControlInput(run_id="r", paused=False, bandwidth_limit=100)
    with controls.copying(asked, threading.Event()) as first:
        assert first.limit == 100
        with controls.copying(asked, threading.Event()) as second:
            assert (first.limit, second.limit) == (50, 50)
            controls.order(ControlInput(run_id="r", paused=True, bandwidth_limit=None))
            assert (first.limit, first.paused, second.paused) == (None, True, True)
        controls.order(asked)
        assert (first.limit, first.paused) == (100, False)


def test_an_order_outlives_the_process_that_took_it(tmp_path: Path) -> None:
    Controls(tmp_path).order(ControlInput(run_id="r", paused=True, bandwidth_limit=7))
    asked_before = ControlInput(run_id="r", paused=False, bandwidth_limit=None)
    with Controls(tmp_path).copying(asked_before, threading.Event()) as control:
        assert (control.paused, control.limit) == (True, 7)


def test_a_forgotten_run_leaves_nothing(tmp_path: Path) -> None:
    controls = Controls(tmp_path)
    controls.order(ControlInput(run_id="r", paused=False))
    controls.forget("r")
    wait_until(lambda: not list(tmp_path.iterdir()), timeout=1)
