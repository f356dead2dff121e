"""The same engine on real block devices: loop devices, which need root."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from models.errors import DiskInUse, DiskMismatch
from tests.transfer.disks import MIB, change, session, write_sparse
from transfer import DeviceTarget, FileSource, RoundPlan

SIZE = 16 * MIB

Attach = Callable[[Path], Path]


@pytest.fixture
def attach() -> Iterator[Attach]:
    """Sets a file up as a loop device."""
    with ExitStack() as devices:

        def set_up(path: Path) -> Path:
            found = run("losetup", "--find", "--show", str(path))
            devices.callback(run, "losetup", "--detach", found)
            return Path(found)

        yield set_up


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_rounds_and_rollback_on_a_block_device(attach: Attach, tmp_path: Path) -> None:
    generator = random.Random(3)
    original = generator.randbytes(SIZE)
    (tmp_path / "disk").write_bytes(original)
    device = attach(tmp_path / "disk")
    wanted = generator.randbytes(SIZE // 2).ljust(SIZE, b"\0")
    source = FileSource(write_sparse(tmp_path / "source", wanted))
    later, changed = change(wanted, generator, 8)
    after = FileSource(write_sparse(tmp_path / "later", later))
    with session(tmp_path, device, SIZE) as opened:
        opened.apply_round(RoundPlan(1, "one"), source, source.allocated)
        assert device.read_bytes() == wanted
        plan = RoundPlan(2, "two", "one", "changed-ranges")
        opened.apply_round(plan, after, changed)
        assert device.read_bytes() == later
        opened.verify_round(2)
        opened.verify_all(source=after)
        opened.roll_back()
    assert device.read_bytes() == original
    source.close()
    after.close()


def test_a_device_is_a_source_too(attach: Attach, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(random.Random(4).randbytes(SIZE))
    source = FileSource(attach(tmp_path / "disk"))
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    with session(tmp_path, target, SIZE) as opened:
        opened.apply_round(RoundPlan(1, "one"), source, source.allocated)
    assert target.read_bytes() == (tmp_path / "disk").read_bytes()
    source.close()


def test_a_mounted_device_is_refused(attach: Attach, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    device = attach(tmp_path / "disk")
    run("mkfs.ext4", "-q", str(device))
    place = tmp_path / "mounted"
    place.mkdir()
    run("mount", str(device), str(place))
    try:
        with pytest.raises(DiskInUse, match=r"mounted at .*mounted"):
            DeviceTarget(device, SIZE).open()
        with pytest.raises(DiskInUse, match="set up as /dev/loop"):
            DeviceTarget(tmp_path / "disk", SIZE).open()
    finally:
        run("umount", str(place))


def test_a_device_taken_exclusively_is_refused(attach: Attach, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    device = attach(tmp_path / "disk")
    with DeviceTarget(device, SIZE), pytest.raises(DiskInUse):
        DeviceTarget(device, SIZE).open()


def test_a_device_of_another_size_or_serial_number_is_refused(
    attach: Attach, tmp_path: Path
) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    device = attach(tmp_path / "disk")
    with pytest.raises(DiskMismatch, match=str(SIZE)):
        DeviceTarget(device, SIZE * 2).open()
    with pytest.raises(DiskMismatch, match="expected is 6000c29"):
        DeviceTarget(device, SIZE, "6000c29").open()


def test_a_link_to_a_device_is_followed(attach: Attach, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(os.urandom(SIZE))
    link = tmp_path / "by-id"
    link.symlink_to(attach(tmp_path / "disk"))
    with DeviceTarget(link, SIZE) as target:
        view = memoryview(bytearray(512))
        target.read_into(0, view)
        assert view == (tmp_path / "disk").read_bytes()[:512]
