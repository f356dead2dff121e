"""Whether the failback is what it claims to be, found out without the product's help.

Before commit both sides still exist: the machine in Azure is stopped, and the machine on-premises
writes on top of a checkpoint, so that below it the disks are exactly as the failback left them.
There they are compared byte by byte. After commit the guest's promises are counted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.guest import Verdict
from lab.stack import evidence
from lab.stack.errors import LabError
from lab.stack.evidence import DiskFile
from lab.stack.lab import Lab
from lab.stack.terminal import human_size

MOST_DOWNTIME_SECONDS = 10.0
MOST_MOVER_BYTES = 256 << 20
MERGE_SECONDS = 60.0
_TOOL_SECONDS = 300.0
_TOOL_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_EXT_MAGIC_AT, _EXT_MAGIC = 1080, b"\x53\xef"


@dataclass(frozen=True)
class Check:
    """One thing that must hold. ``seen`` is what was found."""

    name: str
    holds: bool
    seen: str


class Proof:
    """The checks of one lab, in the order they are made."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.checks: list[Check] = []
        self.digests: dict[str, str] = {}
        self.verdict: Verdict | None = None

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    def add(self, name: str, holds: bool, seen: str) -> None:
        """Note a check."""
        self.checks.append(Check(name, holds, seen))

    # --- while both sides exist ---------------------------------------------------------------

    def before_commit(self) -> None:
        """Compare the two sides' disks."""
        lab = self._lab
        power = str(lab.guests()["azure"].get("power"))
        self.add("Azure's machine is stopped", power == "deallocated", power)
        different = lab.differences()
        for disk_id in lab.world.disk_ids:
            disk = lab.onprem_disk(disk_id)
            self.digests[disk_id] = evidence.digest(disk)
            at = different.get(disk_id)
            same = f"all {human_size(disk.size)}, digest {self.digests[disk_id][:16]}…"
            seen = same if at is None else f"differs from byte {at}"
            self.add(f"{disk_id}: equal to Azure's, byte for byte", at is None, seen)
            self._qemu_compares(disk_id, disk)
            self._file_system(disk_id, disk)

    def _qemu_compares(self, disk_id: str, disk: DiskFile) -> None:
        program = shutil.which("qemu-img", path=_TOOL_PATH)
        if program is None:
            return
        kind = _image_format(disk)
        info = _run(program, "info", "-U", "--output=json", "-f", kind, str(disk.path))
        size = json.loads(info.stdout).get("virtual-size") if info.returncode == 0 else None
        seen = f"{kind}, {size} bytes" if size else info.stderr.strip()
        self.add(f"{disk_id}: qemu-img info", size == disk.size, seen)
        azure = self._lab.azure_disk(disk_id)
        done = _run(
            program, "compare", "-U", "-f", kind, "-F", "raw", str(disk.path), str(azure.path)
        )
        said = (done.stdout or done.stderr).strip()
        self.add(f"{disk_id}: qemu-img compare", done.returncode == 0, said)

    def _file_system(self, disk_id: str, disk: DiskFile) -> None:
        program = shutil.which("e2fsck", path=_TOOL_PATH)
        if program is None or not _holds_ext(disk.path):
            return
        done = _run(program, "-fn", str(disk.path))
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
        last = lines[-1].removeprefix(f"{disk.path}: ") if lines else ""
        self.add(f"{disk_id}: e2fsck -fn", done.returncode == 0, last)

    # --- afterwards ---------------------------------------------------------------------------

    def after_commit(self) -> Verdict:
        """Count the guest's records, and look for what was left over."""
        lab = self._lab
        deadline = time.monotonic() + MERGE_SECONDS
        while lab.evidence.layered(lab.machine) and time.monotonic() < deadline:
            time.sleep(0.1)
        merged = not lab.evidence.layered(lab.machine)
        self.add("the checkpoint is merged", merged, "one layer" if merged else "still layered")
        self.verdict = verdict = lab.verify_records()
        seen = f"{verdict.checked} read back, {verdict.overwritten} overwritten by newer ones"
        if not verdict.whole:
            seen += f"; missing {verdict.missing[:5]}, corrupt {verdict.corrupt[:5]}"
        self.add("every acknowledged record is there", verdict.whole, seen)
        self.add("the guest writes on-premises", *self._writes())
        for disk_id in lab.world.disk_ids:
            self._file_system(f"{disk_id} after commit", lab.onprem_disk(disk_id))
        self._azure_is_gone()
        left = lab.leftovers()
        words = "; ".join(f"{kind}: {', '.join(things)}" for kind, things in left.items())
        self.add("nothing is left over", not left, words or "nothing")
        self._doctor()
        return verdict

    def _writes(self) -> tuple[bool, str]:
        said = self._lab.guests()["onprem"]
        return said.get("heartbeat") == "OK", f"heartbeat {said.get('heartbeat')}"

    def _azure_is_gone(self) -> None:
        state = json.loads((self._lab.directory / "azure.state.json").read_text())
        kinds = ("virtualmachines", "disks", "snapshots")
        left = [
            resource["name"]
            for resource in state["resources"].values()
            if resource["type"].lower().rpartition("/")[2] in kinds
        ]
        self.add("Azure's machine and disks are gone", not left, ", ".join(left) or "gone")

    def _doctor(self) -> None:
        try:
            found: dict[str, Any] = self._lab.doctor()
        except LabError as error:
            self.add("failback doctor", False, str(error)[:300])
            return
        left = [*(found.get("leftovers") or []), *(found.get("problems") or [])]
        self.add("failback doctor", not left, str(left) if left else "finds nothing")

    def limits(self, downtime: float | None, mover_peak: int | None) -> None:
        """Downtime and memory, against what the project promises."""
        fits = downtime is not None and downtime < MOST_DOWNTIME_SECONDS
        seen = "not measured" if downtime is None else f"{downtime:.1f} s"
        self.add(f"downtime under {MOST_DOWNTIME_SECONDS:.0f} s", fits, seen)
        small = mover_peak is not None and mover_peak < MOST_MOVER_BYTES
        seen = "not measured" if mover_peak is None else human_size(mover_peak)
        self.add(f"mover under {human_size(MOST_MOVER_BYTES)}", small, seen)


def _image_format(disk: DiskFile) -> str:
    """A fixed VHD, or the raw payload that the lab keeps a VHDX as."""
    return "vpc" if disk.path.suffix.lower() == ".vhd" else "raw"


def _holds_ext(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_EXT_MAGIC_AT)
        return file.read(2) == _EXT_MAGIC


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False
    )
