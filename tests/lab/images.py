"""Small disks for the lab's tests: files that the guest can use, and the tools that judge them."""

import os
import shutil
import subprocess
from pathlib import Path

from lab.filesystem import build_data_disk, build_empty_disk

MIB = 1 << 20


class FileDisk:
    """A raw image file as the guest sees a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def clear(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))


def make_disks(folder: Path, *, slots: int = 512) -> dict[int, FileDisk]:
    """Two small disks of one machine: an ext4 of 64 MiB with 8 MiB of files, and an empty one."""
    build_data_disk(
        folder / "disk0.raw",
        size_bytes=64 * MIB,
        data_bytes=8 * MIB,
        machine="web01",
        disks=2,
        records_bytes=slots * 4096,
        scratch_bytes=4 * MIB,
    )
    build_empty_disk(
        folder / "disk1.raw", size_bytes=16 * MIB, machine="web01", records_bytes=slots * 4096
    )
    return {lun: FileDisk(folder / f"disk{lun}.raw") for lun in (0, 1)}


def file_system_is_clean(image: Path) -> bool:
    """What ``e2fsck -fn`` says; it comes with the tools that made the image."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    program = shutil.which("e2fsck", path=path)
    assert program is not None
    return subprocess.run([program, "-fn", image], capture_output=True).returncode == 0
