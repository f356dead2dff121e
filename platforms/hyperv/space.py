"""Free space on the host's volumes, for disks to be created and for disks that grow."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from models.units import human_size
from platforms.base import Call
from platforms.hyperv import paths, scripts
from platforms.hyperv.checks import Checks
from platforms.hyperv.facts import VirtualDisk, listed
from platforms.hyperv.host import Host

# What the machine writes between boot and commit goes into the checkpoint's layers.
CHECKPOINT_SHARE = 0.05


@dataclass(frozen=True)
class Volume:
    """A volume of the host; `error` where it could not be asked."""

    root: str
    free_bytes: int
    error: str


def volumes_of(host: Host, files: list[str], call: Call) -> dict[str, Volume]:
    """The volume of each of these paths."""
    roots = {path: paths.volume_root(path) for path in files}
    wanted = sorted(set(roots.values()))
    if not wanted:
        return {}
    answer = host.ask("read its volumes", scripts.volumes(wanted), call)
    found = {
        str(value["root"]): Volume(
            str(value["root"]), int(value.get("free") or 0), str(value.get("error") or "")
        )
        for value in listed(answer)
    }
    return {path: found[root] for path, root in roots.items()}


def check_room_to_grow(host: Host, files: list[VirtualDisk], checks: Checks, call: Call) -> None:
    """A warning where volumes are too small for dynamic disks at full size and a checkpoint."""
    readable = [file for file in files if not file.error]
    volumes = volumes_of(host, [file.path for file in readable], call)
    needs: dict[Volume, float] = defaultdict(float)
    for file in readable:
        growth = max(0, file.size_bytes - file.file_bytes)
        needs[volumes[file.path]] += growth + CHECKPOINT_SHARE * file.size_bytes
    tight = [
        f"{volume.root}: "
        + (
            f"free space is not known ({volume.error})"
            if volume.error
            else f"{human_size(volume.free_bytes)} free, {human_size(need)} may be needed"
        )
        for volume, need in needs.items()
        if volume.error or volume.free_bytes < need
    ]
    if tight:
        checks.warning(
            "room to grow",
            "ROOM",
            "; ".join(tight),
            "Free space: dynamic disks grow as they are written, and the checkpoint taken before "
            "boot grows with what the machine writes.",
        )
    else:
        checks.passed(
            "room to grow",
            "; ".join(f"{v.root}: {human_size(v.free_bytes)} free" for v in needs) or "no disks",
        )
