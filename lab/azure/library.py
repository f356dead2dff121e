"""The bytes behind managed disks and their snapshots, by the disk's unique id, open once each."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from lab.azure.store import State
from lab.disks import Disk, SnapshotView


class Library:
    """All disk directories of one emulator."""

    def __init__(self, directory: Path) -> None:
        """``directory`` holds one directory per disk, named by its unique id."""
        self._directory = directory
        self._lock = threading.RLock()
        self._open: dict[str, Disk] = {}

    def path(self, disk_uuid: str) -> Path:
        """Where the bytes of a disk are; ``live.raw`` in it is the disk's present content."""
        return self._directory / disk_uuid

    def disk(self, disk_uuid: str) -> Disk:
        """The disk, opened on first use. Raises :class:`lab.disks.DiskError` if it is not there."""
        with self._lock:
            if disk_uuid not in self._open:
                self._open[disk_uuid] = Disk(self.path(disk_uuid))
            return self._open[disk_uuid]

    def create(
        self, disk_uuid: str, size: int, image: Path | None = None, *, move: bool = False
    ) -> Disk:
        """A new disk, empty or with the content of a raw image file."""
        with self._lock:
            if image is None:
                disk = Disk.create(self.path(disk_uuid), size)
            else:
                disk = Disk.adopt(self.path(disk_uuid), image, move=move, size=size)
            self._open[disk_uuid] = disk
            return disk

    def copy(self, disk_uuid: str, source: SnapshotView, size: int) -> None:
        """Make a disk from a snapshot; nothing happens if a kill left it finished already."""
        if not (self.path(disk_uuid) / "disk.json").exists():
            Disk.copy_of(self.path(disk_uuid), source, size).close()

    def delete_snapshot(self, disk_uuid: str, snapshot_id: str) -> None:
        """Forget a snapshot if it is still there."""
        if (self.path(disk_uuid) / "disk.json").exists():
            disk = self.disk(disk_uuid)
            if snapshot_id in disk.snapshots():
                disk.delete_snapshot(snapshot_id)

    def collect(self, state: State) -> None:
        """Remove the bytes that no resource, grant or unfinished operation refers to.

        A disk's bytes live on while it has snapshots, even when the disk itself is deleted.
        """
        with self._lock:
            used = _references(state)
            for path in self._directory.glob("*"):
                if path.name not in used:
                    disk = self._open.pop(path.name, None)
                    if disk:
                        disk.close()
                    shutil.rmtree(path, ignore_errors=True)
                elif (path / "disk.json").exists():
                    disk = self.disk(path.name)
                    for snapshot_id in set(disk.snapshots()) - used[path.name]:
                        disk.delete_snapshot(snapshot_id)


def _references(state: State) -> dict[str, set[str]]:
    used: dict[str, set[str]] = {}
    holders = [resource["lab"] for resource in state["resources"].values()]
    holders += list(state["grants"].values())
    holders += [o["params"] for o in state["operations"].values() if o["status"] == "InProgress"]
    for holder in holders:
        for disk, snapshot in (("disk", "snapshot"), ("source", "source_snapshot")):
            if holder.get(disk):
                used.setdefault(holder[disk], set()).add(holder.get(snapshot, ""))
    return used
