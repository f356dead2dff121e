"""Which disk on the host belongs to which disk in Azure. Nothing is guessed: where neither the spec
nor the order of the disks tells, the answer is how to say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.machine import CloudDisk
from models.units import human_size
from platforms.hyperv.facts import Drive, VirtualDisk, same_name


@dataclass(frozen=True)
class Pair:
    """An Azure disk and the drive that it comes home to."""

    cloud: CloudDisk
    drive: Drive


@dataclass
class Pairing:
    """The pairs, and what stood against a complete list of them."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    counts_differ: bool = False


def pair_disks(
    cloud: list[CloudDisk], drives: list[Drive], generation: int, mapped: dict[str, str]
) -> Pairing:
    """Pair by the spec's map first, the boot drive next, then by order.

    Args:
        cloud: The disks in Azure.
        drives: The machine's drives that hold disk files.
        generation: Of the on-premises machine; tells its boot drive.
        mapped: From the spec: path on the host by Azure disk.
    """
    result = Pairing()
    if len(cloud) != len(drives):
        result.counts_differ = True
        result.problems.append(
            f"Azure has {len(cloud)} disk(s) ({', '.join(disk.disk_id for disk in cloud)}), the "
            f"machine has {len(drives)} ({', '.join(drive.path for drive in drives) or 'none'})"
        )
    waiting = {disk.disk_id: disk for disk in sorted(cloud, key=_lun)}
    free = sorted(drives, key=lambda drive: drive.order)
    _pair_mapped(result, waiting, free, mapped)
    _pair_boot(result, waiting, free, generation)
    for disk, drive in zip(waiting.values(), free, strict=False):
        result.pairs.append(Pair(disk, drive))
    result.pairs.sort(key=lambda pair: _lun(pair.cloud))
    return result


def crossed(pairing: Pairing, disks: dict[str, VirtualDisk]) -> list[str]:
    """Where the sizes fit in another order than the one the disks are in, and so the order cannot
    be right: what to write into the spec, one line per disk whose size tells."""
    here = [disks[pair.drive.path.casefold()].size_bytes for pair in pairing.pairs]
    there = [pair.cloud.size_bytes for pair in pairing.pairs]
    if pairing.counts_differ or here == there or sorted(here) != sorted(there):
        return []
    lines = []
    for pair in pairing.pairs:
        fitting = [
            other.drive.path
            for other, size in zip(pairing.pairs, here, strict=True)
            if size == pair.cloud.size_bytes
        ]
        size = human_size(pair.cloud.size_bytes)
        lines.append(f"{pair.cloud.disk_id} ({size}): {' or '.join(fitting)}")
    return lines


def _pair_mapped(
    result: Pairing, waiting: dict[str, CloudDisk], free: list[Drive], mapped: dict[str, str]
) -> None:
    for disk_id, path in mapped.items():
        drive = next((drive for drive in free if same_name(drive.path, path)), None)
        disk = waiting.get(disk_id)
        if disk is None:
            result.problems.append(f"on_premises.disks names {disk_id!r}, which Azure has not")
        elif drive is None:
            result.problems.append(f"on_premises.disks names {path!r}, which the machine has not")
        else:
            result.pairs.append(Pair(disk, drive))
            del waiting[disk_id]
            free.remove(drive)


def _pair_boot(
    result: Pairing, waiting: dict[str, CloudDisk], free: list[Drive], generation: int
) -> None:
    if "os" not in waiting or not free:
        return
    kind = "IDE" if generation == 1 else "SCSI"
    boot = next((drive for drive in free if drive.controller_type.upper() == kind), None)
    if boot is None or (generation == 1 and boot.order != (0, 0, 0)):
        result.problems.append(
            "the drive that the machine boots from cannot be told: none at "
            + ("IDE 0:0" if generation == 1 else "a SCSI controller")
        )
        return
    result.pairs.append(Pair(waiting.pop("os"), boot))
    free.remove(boot)


def _lun(disk: CloudDisk) -> int:
    """The OS disk first, data disks by their LUN."""
    digits = disk.disk_id.removeprefix("lun")
    return int(digits) if digits.isdigit() else -1
