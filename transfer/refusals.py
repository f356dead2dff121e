"""Reasons to refuse a target before a byte of it is touched.

A device that is missing, of the wrong size or identity, mounted or part of another device is not
ours, whatever its path says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from models.errors import DiskInUse, DiskMismatch, DiskMissing

_BY_ID = Path("/dev/disk/by-id")
_SYS_BLOCK = Path("/sys/dev/block")


def check_target(path: Path, size: int, identity: str | None = None) -> Path:
    """The real path of a disk that may be opened for writing.

    Raises:
        DiskMissing: If nothing is there.
        DiskMismatch: If it is no disk, a link to a file, or of another size or identity.
        DiskInUse: If it, a partition of it or a device above it is in use.
    """
    real = _existing(path)
    status = os.stat(real)
    if stat.S_ISREG(status.st_mode):
        if real != path.parent.resolve() / path.name:
            raise DiskMismatch(
                f"{path} is a symbolic link to the file {real}.",
                hint="Name the file itself; links are followed to block devices only.",
            )
        _check_loop(real)
    elif stat.S_ISBLK(status.st_mode):
        _check_device(path, _SYS_BLOCK / _numbers(status.st_rdev))
    else:
        raise DiskMismatch(
            f"{path} is neither a block device nor a file.", hint="Check which disk was attached."
        )
    _check_size(path, real, size)
    _check_identity(path, real, identity)
    return real


def identities(real: Path) -> set[str]:
    """Every name by which a device (or file) can be told from others."""
    status = os.stat(real)
    if stat.S_ISREG(status.st_mode):
        return {f"{status.st_dev}:{status.st_ino}"}
    system = (_SYS_BLOCK / _numbers(status.st_rdev)).resolve()
    places = ("serial", "wwid", "device/serial", "device/wwid")
    names = {_text(system / place) for place in places}
    if _BY_ID.is_dir():
        names |= {link.name for link in _BY_ID.iterdir() if link.resolve() == real}
    return names - {""}


def _existing(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DiskMissing(
            f"There is no disk at {path}.", hint="Is it attached to this mover?"
        ) from error


def _check_size(path: Path, real: Path, size: int) -> None:
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
    if found != size:
        raise DiskMismatch(
            f"{path} has {found} bytes, expected are {size}.",
            hint="Another disk is attached there, or it was resized.",
        )


def _check_identity(path: Path, real: Path, identity: str | None) -> None:
    if identity is None:
        return
    found = identities(real)
    if identity not in found:
        known = ", ".join(sorted(found)) or "no identity"
        raise DiskMismatch(
            f"{path} is {known}, expected is {identity}.",
            hint="It is not the disk that the hypervisor attached.",
        )


def _check_loop(real: Path) -> None:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if _text(backing) == str(real):
            device = backing.parent.parent.name
            raise DiskInUse(
                f"{real} is set up as /dev/{device}.", hint=f"Detach it: losetup -d /dev/{device}"
            )


def _check_device(path: Path, system: Path) -> None:
    family = [system.resolve(), *_partitions(system.resolve())]
    mounts = _mounts()
    for member in family:
        numbers = _text(member / "dev")
        if numbers in mounts:
            place = mounts[numbers]
            raise DiskInUse(
                f"{path} ({member.name}) is mounted at {place}.", hint=f"Unmount it: umount {place}"
            )
        holders = member / "holders"
        held_by = sorted(os.listdir(holders)) if holders.is_dir() else []
        if held_by:
            raise DiskInUse(
                f"{path} ({member.name}) is part of {', '.join(held_by)}.",
                hint="Stop the volume group, RAID or mapping that holds it.",
            )


def _partitions(system: Path) -> Iterator[Path]:
    for entry in system.iterdir():
        if (entry / "partition").exists():
            yield entry


def _mounts() -> dict[str, str]:
    """Mount points by `major:minor`."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {fields[2]: fields[4] for fields in (line.split() for line in lines)}


def _numbers(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
