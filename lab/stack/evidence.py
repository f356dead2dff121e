"""What the disks and the emulators say afterwards, read past the product: digests of both sides'
disks, what was left over, and which of the guest's promises were kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from lab.guest import Verdict, verify_acknowledged
from lab.hyperv.disks import close
from lab.hyperv.model import Image, Machine, Store
from lab.hyperv.storage import Storage
from lab.records import Disk
from lab.stack.errors import LabError

CHUNK = 1 << 20
_KEPT_BY_MOVER = ("generation", "lock")
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True)
class DiskFile:
    """The bytes of a disk: the first ``size`` bytes of ``path``."""

    path: Path
    size: int


class Evidence:
    """Looks into one lab directory; emulators may run or not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    # --- disks --------------------------------------------------------------------------------

    def azure_disk(self, name: str) -> DiskFile:
        """A managed disk as it is now, by its name in Azure."""
        state = json.loads((self._directory / "azure.state.json").read_text())
        for resource in state["resources"].values():
            if resource["type"].lower().endswith("/disks") and resource["name"] == name:
                path = self._directory / "azure-disks" / resource["lab"]["disk"] / "live.raw"
                return DiskFile(path, path.stat().st_size)
        raise LabError(f"There is no disk {name} in Azure.")

    def on_premises_disk(self, machine: str, number: int) -> DiskFile:
        """A disk of a machine on the host, in firmware order, without what was written on top of it
        since a checkpoint: as it was when the checkpoint was taken."""
        image = self._image(self._store(), self._drive_path(machine, number))
        path = Storage(self._directory, self._store()).local(image.path)
        return DiskFile(path, image.size_bytes)

    def on_premises_disks(self, machine: str) -> dict[int, Disk]:
        """A machine's disks as its guest sees them, layers of checkpoints included.

        The caller closes them (`close_disks`).
        """
        storage = Storage(self._directory, self._store())
        drives = self._machine(machine).drives
        return {number: storage.open(drive.path) for number, drive in enumerate(drives)}

    def layered(self, machine: str) -> bool:
        """Whether the machine runs on top of a checkpoint that is not merged yet."""
        store = self._store()
        if store.state.merges:
            return True
        return any(d.path.lower().endswith(".avhdx") for d in self._machine(machine).drives)

    def _store(self) -> Store:
        return Store(self._directory)

    def _machine(self, name: str) -> Machine:
        for machine in self._store().state.machines:
            if machine.name == name:
                return machine
        raise LabError(f"There is no machine {name} on the host.")

    def _drive_path(self, machine: str, number: int) -> str:
        drives = sorted(self._machine(machine).drives, key=lambda drive: drive.place)
        if number >= len(drives):
            raise LabError(f"{machine} has {len(drives)} disk(s) on the host.")
        return drives[number].path

    def _image(self, store: Store, path: str) -> Image:
        storage = Storage(self._directory, store)
        image = storage.describe(path)
        while image.parent is not None:
            image = storage.describe(image.parent)
        return image

    # --- what is left over --------------------------------------------------------------------

    def leftovers(self, mover: str) -> dict[str, list[str]]:
        """Everything that a run which cleaned up has none of, by kind; empty if there is nothing.

        Args:
            mover: The mover, which holds no disk when nothing is under way.
        """
        found = self._azure_leftovers()
        state = self._store().state
        for machine in state.machines:
            if machine.name == mover:
                found["disks at the mover"] = [drive.path for drive in machine.drives]
            else:
                names = [f"{machine.name}: {one.name}" for one in machine.checkpoints]
                found.setdefault("checkpoints", []).extend(names)
        found["layers"] = [i.path for i in state.images.values() if i.parent is not None]
        found["mover files"] = self._mover_files()
        return {kind: things for kind, things in found.items() if things}

    def _azure_leftovers(self) -> dict[str, list[str]]:
        # The emulator's own function, on its own state: the same whether it runs or not.
        from lab.azure.admin import leftovers

        state = json.loads((self._directory / "azure.state.json").read_text())
        return {f"azure {kind}": things for kind, things in leftovers(state).items()}

    def _mover_files(self) -> list[str]:
        """Journals and ledgers. What says who writes next, and the manifest, are meant to stay."""
        root = self._directory / "mover-state"
        files = (path for path in root.rglob("*") if path.is_file())
        return sorted(
            str(path.relative_to(root))
            for path in files
            if path.name not in _KEPT_BY_MOVER and not path.name.startswith("manifest")
        )

    # --- the guest ----------------------------------------------------------------------------

    def acknowledgements(self, machine: str) -> list[Path]:
        """The lists of what the guest was promised to be kept: in Azure, and on-premises."""
        folder = self._directory / "guest" / machine
        return [folder / "ack-azure.jsonl", folder / "ack-onprem.jsonl"]

    def verify_records(self, machine: str) -> Verdict:
        """Read every acknowledged record from the on-premises disks."""
        # What is acknowledged from here on may come too late for the reading that follows.
        disks = self.on_premises_disks(machine)
        try:
            return verify_acknowledged(disks, self.acknowledgements(machine))
        finally:
            close_disks(disks)

    def acknowledged(self, machine: str) -> dict[str, Any]:
        """How many records were acknowledged where, and the newest of them."""
        found: dict[str, Any] = {}
        for site, path in zip(("azure", "onprem"), self.acknowledgements(machine), strict=True):
            last, count = _last_line(path)
            found[site] = {"records": count, "last": last}
        return found


def digest(disk: DiskFile) -> str:
    """A digest of a disk's content, in which holes and zeros are the same."""
    state = blake3(max_threads=blake3.AUTO)
    state.update(disk.size.to_bytes(8, "big"))
    for offset, chunk in _chunks(disk):
        if chunk != _ZEROS[: len(chunk)]:
            state.update(offset.to_bytes(8, "big"))
            state.update(chunk)
    return str(state.hexdigest())


def first_difference(one: DiskFile, other: DiskFile) -> int | None:
    """The offset of the first byte in which two disks differ; None if they are equal."""
    if one.size != other.size:
        return min(one.size, other.size)
    with one.path.open("rb") as left, other.path.open("rb") as right:
        for offset in sorted({at for disk in (one, other) for at in _offsets(disk)}):
            length = min(CHUNK, one.size - offset)
            mine = os.pread(left.fileno(), length, offset)
            theirs = os.pread(right.fileno(), length, offset)
            if mine != theirs:
                pairs = zip(mine, theirs, strict=True)
                return offset + next(i for i, (a, b) in enumerate(pairs) if a != b)
    return None


def close_disks(disks: dict[int, Disk]) -> None:
    """Close what `Evidence.on_premises_disks` opened."""
    for disk in disks.values():
        close(disk)


def _chunks(disk: DiskFile) -> Iterator[tuple[int, bytes]]:
    with disk.path.open("rb") as file:
        for offset in _offsets(disk):
            yield offset, os.pread(file.fileno(), min(CHUNK, disk.size - offset), offset)


def _offsets(disk: DiskFile) -> Iterator[int]:
    """Offsets of the whole chunks that hold any data, in order."""
    with disk.path.open("rb") as file:
        at = 0
        while at < disk.size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole up to the end
            if start >= disk.size:
                return
            start -= start % CHUNK
            end = min(os.lseek(file.fileno(), max(start, at), os.SEEK_HOLE), disk.size)
            # A hole may begin in the chunk in which the data before it ends.
            end = max(end, start + 1)
            yield from range(max(start, at), end, CHUNK)
            at = -(-end // CHUNK) * CHUNK


def _last_line(path: Path) -> tuple[dict[str, Any] | None, int]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return None, 0
    return (json.loads(lines[-1]) if lines else None), len(lines)
