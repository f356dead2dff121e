"""What a target does to its disk, and the disks it refuses."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from models.errors import DiskInUse, DiskMismatch, DiskMissing
from tests.transfer.disks import MIB, allocated
from transfer import DeviceTarget
from transfer.blocks import BLOCK, Buffer
from transfer.refusals import identities

SIZE = 4 * MIB + 512


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw file full of data."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_what_is_written_is_read_back_from_the_device(disk: Path) -> None:
    with DeviceTarget(disk, SIZE) as target:
        content = os.urandom(2 * BLOCK)
        target.write(BLOCK, memoryview(content))
        target.flush()
        buffer = Buffer(MIB)
        target.read_back(BLOCK, buffer, 2 * BLOCK)
        assert buffer.view[: 2 * BLOCK] == content
        target.read_back(4 * MIB, buffer, 512)
        assert buffer.view[:512] == disk.read_bytes()[-512:]


def test_zeroed_bytes_read_as_zeros_and_give_their_space_back(disk: Path) -> None:
    before = allocated(disk)
    with DeviceTarget(disk, SIZE) as target:
        target.zero(MIB, 2 * MIB)
        target.flush()
        assert target.is_hole(MIB, 3 * MIB)
        assert list(target.data(0, SIZE)) == [(0, MIB), (3 * MIB, SIZE)]
    assert disk.read_bytes()[MIB : 3 * MIB] == bytes(2 * MIB)
    assert disk.stat().st_size == SIZE
    assert allocated(disk) <= before - 2 * MIB


def test_a_missing_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskMissing):
        DeviceTarget(tmp_path / "nothing", SIZE).open()


def test_a_disk_of_another_size_is_refused(disk: Path) -> None:
    with pytest.raises(DiskMismatch, match="expected are 1048576"):
        DeviceTarget(disk, MIB).open()


def test_a_disk_of_another_identity_is_refused(disk: Path) -> None:
    (own,) = identities(disk)
    with DeviceTarget(disk, SIZE, own):
        pass
    with pytest.raises(DiskMismatch, match="expected is another"):
        DeviceTarget(disk, SIZE, "another").open()


@pytest.mark.parametrize("kind", ["directory", "character device"])
def test_what_is_no_disk_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "directory" else Path("/dev/null")
    with pytest.raises(DiskMismatch, match="neither"):
        DeviceTarget(path, SIZE).open()


def test_a_link_to_a_file_is_refused(disk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(disk)
    with pytest.raises(DiskMismatch, match="symbolic link"):
        DeviceTarget(link, SIZE).open()


def test_a_disk_that_is_open_for_writing_already_is_refused(disk: Path) -> None:
    with DeviceTarget(disk, SIZE), pytest.raises(DiskInUse):
        DeviceTarget(disk, SIZE).open()


def test_an_image_that_an_emulator_holds_is_refused(disk: Path) -> None:
    """QEMU marks its images with shared record locks on bytes from 100 on."""
    with disk.open("rb") as held:
        record = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, record)
        with pytest.raises(DiskInUse):
            DeviceTarget(disk, SIZE).open()
