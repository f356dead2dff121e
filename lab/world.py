"""What there is in a lab: a machine that runs in Azure, and where it came from.

A world is described here and built into a lab directory before anything runs: disk images, the
emulated subscription, the Hyper-V host, and the two files a user would write (the spec and the
workers' configuration). The on-premises disks are as they were at failover time: the same images
as Azure's, before Azure's went on changing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

MIB = 1 << 20
GIB = 1 << 30

WORLD_FILE = "world.json"
SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
RESOURCE_GROUP = "dr-rg"
HOST = "hv01"
SWITCH = "Production"
# What the emulated Azure takes for its long-running operations, in seconds. Fixed in the lab so
# that figures of two runs can be compared; the real one is slower and varies.
LATENCY = {"snapshots": 0.3, "disks": 0.3, "access": 0.3, "vm": 1.0, "vm_update": 0.3}
QUICK_LATENCY = {"snapshots": 0.05, "disks": 0.05, "access": 0.05, "vm": 0.2, "vm_update": 0.05}


@dataclass(frozen=True)
class DiskPlan:
    """One disk of the machine.

    Attributes:
        size_bytes: Its size; ignored with an `image`.
        data_bytes: Files on it, in an ext4; 0 for a disk without a file system.
        records_bytes: Room for the guest's records; 0 on a disk that the guest leaves alone.
        scratch_bytes: Room that the guest dirties and trims.
        image: A raw or fixed VHD image to take instead; it is copied, never changed.
    """

    size_bytes: int
    data_bytes: int = 0
    records_bytes: int = 8 * MIB
    scratch_bytes: int = 4 * MIB
    image: str | None = None


@dataclass(frozen=True)
class World:
    """A machine in Azure, its origin on a Hyper-V host, and how the operator wants it home.

    Attributes:
        disks: The OS disk first, then data disks by LUN.
        generation: 1 (VHD on-premises) or 2 (VHDX).
        original: Whether the machine still exists on-premises; otherwise it is created
            (alternate location).
        stale_blocks: About how many 64 KiB blocks of the OS disk differ between the two sides.
        interval_seconds: Between two rounds while the run is ready.
        extent_bytes: The engine's unit of progress.
        records_per_second: How fast the guest writes.
        latency: Seconds that the emulated Azure takes, by kind of operation.
        static_address: Have the spec put a static address back into the guest.
        options: Further top-level fields of the spec, such as ``{"shutdown": {"force": True}}``.
    """

    machine: str = "web01"
    mover: str = "mover01"
    disks: tuple[DiskPlan, ...] = ()
    generation: int = 1
    original: bool = True
    stale_blocks: int = 64
    interval_seconds: float = 5
    extent_bytes: int = 16 * MIB
    records_per_second: float = 50
    latency: dict[str, float] = field(default_factory=lambda: dict(LATENCY))
    static_address: bool = False
    seed: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def demo(*, disk: Path | None = None) -> World:
        """The world of the demo: 4 GiB with over 1 GiB of files, and a mostly empty disk.

        ``disk``: a raw or VHD image to be the OS disk instead; the guest then writes to the second.
        """
        if disk is not None:
            system = DiskPlan(0, records_bytes=0, scratch_bytes=0, image=str(disk.resolve()))
            data = DiskPlan(GIB, records_bytes=64 * MIB, scratch_bytes=64 * MIB)
        else:
            system = DiskPlan(4 * GIB, GIB + 64 * MIB, 32 * MIB, 64 * MIB)
            data = DiskPlan(GIB, records_bytes=32 * MIB, scratch_bytes=0)
        return World(disks=(system, data), stale_blocks=1024)

    @staticmethod
    def small(*, data_disks: int = 1, quick: bool = True, **changes: Any) -> World:
        """A world whose whole failback takes seconds, for tests.

        ``quick``: have Azure answer as fast as it can. ``changes``: any attribute of a world.
        """
        system = DiskPlan(64 * MIB, 8 * MIB)
        data = tuple(DiskPlan(32 * MIB, scratch_bytes=0) for _ in range(data_disks))
        latency = QUICK_LATENCY if quick else LATENCY
        world = World(
            disks=(system, *data), interval_seconds=1, extent_bytes=MIB, latency=dict(latency)
        )
        return replace(world, **changes)

    @property
    def disk_ids(self) -> tuple[str, ...]:
        """The disks as the product names them: ``os``, ``lun0``, ``lun1``, …"""
        return ("os", *(f"lun{number}" for number in range(len(self.disks) - 1)))

    def azure_disk(self, disk_id: str) -> str:
        """The name of a disk in Azure."""
        return f"{self.machine}-{disk_id}"

    def save(self, directory: Path) -> None:
        """Write it down: who has this file has a world that is built."""
        temporary = directory / f"{WORLD_FILE}.new"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(directory / WORLD_FILE)

    @staticmethod
    def load(directory: Path) -> World | None:
        """The world that was built into a lab directory, None if there is none yet."""
        try:
            fields = json.loads((directory / WORLD_FILE).read_text())
        except FileNotFoundError:
            return None
        disks = tuple(DiskPlan(**disk) for disk in fields.pop("disks"))
        return World(**{**fields, "disks": disks})
