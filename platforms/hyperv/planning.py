"""Preflight of a machine that is to be created: its shape, and whether the host has the place."""

from __future__ import annotations

from models.machine import AdapterSettings, CloudMachine, OnPremisesDisk, OnPremisesMachine
from models.spec import FailbackSpec
from models.units import human_size
from platforms.base import Call
from platforms.hyperv import paths
from platforms.hyperv.checks import Checks
from platforms.hyperv.facts import FIRST_ADAPTER, Overview, same_name
from platforms.hyperv.host import Host
from platforms.hyperv.space import CHECKPOINT_SHARE, volumes_of

# The largest .vhd that Hyper-V makes.
_VHD_LIMIT_BYTES = 2040 * 2**30
_IDE_BOOT = "IDE 0:0"


def check_planned(
    host: Host,
    spec: FailbackSpec,
    cloud: CloudMachine | None,
    overview: Overview,
    checks: Checks,
    call: Call,
) -> OnPremisesMachine | None:
    """All checks of a machine to be created, and the machine as it will be."""
    folder = spec.on_premises.storage_path or ""
    absolute = paths.is_absolute(folder)
    checks.decide(
        "storage path",
        "STORAGE",
        [] if absolute else [f"{folder!r} is not an absolute path"],
        folder,
        "Name a folder on the host, such as D:\\Hyper-V.",
    )
    if cloud is None or not absolute:
        return None
    machine = plan(host, spec, cloud)
    _check_size(machine, checks)
    _check_format(machine, checks)
    _check_switches(spec, machine, overview, checks)
    _check_files(host, machine, checks, call)
    _check_space(host, machine, checks, call)
    return machine


def plan(host: Host, spec: FailbackSpec, cloud: CloudMachine) -> OnPremisesMachine:
    """The machine as it will be created."""
    name = spec.on_premises_name
    return OnPremisesMachine(
        name=name,
        generation=cloud.generation,
        created=True,
        processors=spec.on_premises.processors or cloud.processors,
        memory_bytes=spec.on_premises.memory or cloud.memory_bytes,
        os_type=cloud.os_type,
        disks=_plan_disks(host, spec, cloud, name),
        adapters=_plan_adapters(spec, cloud),
    )


def _plan_disks(
    host: Host, spec: FailbackSpec, cloud: CloudMachine, name: str
) -> list[OnPremisesDisk]:
    folder = paths.join(spec.on_premises.storage_path or "", name)
    suffix = host.settings.created_disk_format
    # Generation 1 boots from IDE and leaves SCSI 0:0 to the first data disk.
    places = [_IDE_BOOT] if cloud.generation == 1 else []
    places += [f"SCSI 0:{location}" for location in range(64)]
    ordered = sorted(cloud.disks, key=lambda disk: (disk.disk_id != "os", _lun(disk.disk_id)))
    return [
        OnPremisesDisk(
            disk_id=disk.disk_id,
            path=spec.on_premises.disks.get(disk.disk_id)
            or paths.join(folder, f"{name}-{disk.disk_id}.{suffix}"),
            size_bytes=disk.size_bytes,
            controller=place,
            created=True,
        )
        for disk, place in zip(ordered, places, strict=False)
    ]


def _plan_adapters(spec: FailbackSpec, cloud: CloudMachine) -> list[AdapterSettings]:
    """One adapter per network interface in Azure, and one in any case, because a new machine has
    one. A switch named like the subnet is taken where the spec names none (H14)."""
    switches = spec.on_premises.switches
    subnets = [adapter.subnet.rpartition("/")[2] for adapter in cloud.adapters] or [""]
    return [
        AdapterSettings(
            name=FIRST_ADAPTER if position == 0 else f"{FIRST_ADAPTER} {position + 1}",
            switch=switches.get(subnet) or switches.get("default") or subnet or None,
        )
        for position, subnet in enumerate(subnets)
    ]


def _check_size(machine: OnPremisesMachine, checks: Checks) -> None:
    wrong = []
    if machine.processors is None:
        wrong.append("the number of processors is not known")
    if machine.memory_bytes is None:
        wrong.append("the memory is not known")
    checks.decide(
        "processors and memory",
        "MACHINE-SIZE",
        wrong,
        f"{machine.processors} processors, {human_size(machine.memory_bytes or 0)}",
        "Write on_premises.processors and on_premises.memory into the spec.",
    )


def _check_format(machine: OnPremisesMachine, checks: Checks) -> None:
    wrong = []
    for disk in machine.disks:
        if not disk.path.lower().endswith(".vhd"):
            continue
        if machine.generation == 2:
            wrong.append(f"{disk.path} would be a .vhd, and generation 2 boots .vhdx only")
        elif disk.size_bytes > _VHD_LIMIT_BYTES:
            wrong.append(f"{disk.disk_id} is larger than a .vhd can be (2040 GiB)")
    checks.decide(
        "disk format",
        "DISK-FORMAT",
        wrong,
        "can be created",
        "Use .vhdx (created_disk_format of the host, or the paths in on_premises.disks).",
    )


def _check_switches(
    spec: FailbackSpec, machine: OnPremisesMachine, overview: Overview, checks: Checks
) -> None:
    wanted = {adapter.switch for adapter in machine.adapters if adapter.switch}
    wanted |= {adapter.switch for adapter in spec.on_premises.adapters if adapter.switch}
    checks.decide(
        "switches",
        "SWITCH",
        [f"no switch named {name!r}" for name in sorted(wanted) if not overview.has_switch(name)],
        ", ".join(sorted(wanted)) or "none is needed",
        "Create it, or map the subnet in on_premises.switches to one of: "
        f"{', '.join(overview.switches) or 'none exists'}.",
    )
    names = [adapter.name for adapter in machine.adapters]
    checks.decide(
        "adapters",
        "ADAPTER",
        [
            f"there will be no adapter named {adapter.name!r}"
            for adapter in spec.on_premises.adapters
            if not any(same_name(adapter.name, name) for name in names)
        ],
        ", ".join(names),
        f"Use the names that the new machine will have: {', '.join(names)}.",
    )


def _check_files(host: Host, machine: OnPremisesMachine, checks: Checks, call: Call) -> None:
    taken = host.existing([disk.path for disk in machine.disks], call)
    checks.decide(
        "no file in the way",
        "FILE-EXISTS",
        [f"{path} exists" for path in sorted(taken)],
        ", ".join(disk.path for disk in machine.disks),
        "Move it away, or choose another storage_path; no file is ever overwritten.",
    )


def _check_space(host: Host, machine: OnPremisesMachine, checks: Checks, call: Call) -> None:
    needs: dict[str, float] = {}
    problems: list[str] = []
    volumes = volumes_of(host, [disk.path for disk in machine.disks], call)
    free = {volume.root: volume for volume in volumes.values()}
    for disk in machine.disks:
        root = volumes[disk.path].root
        needs[root] = needs.get(root, 0) + disk.size_bytes * (1 + CHECKPOINT_SHARE)
    for root, need in needs.items():
        # The host keeps room for the machine's memory beside its configuration.
        need += machine.memory_bytes or 0
        volume = free[root]
        if paths.is_share(root):
            continue
        if volume.error:
            problems.append(f"{root}: {volume.error}")
        elif volume.free_bytes < need:
            problems.append(
                f"{root}: {human_size(volume.free_bytes)} free, {human_size(need)} needed"
            )
    checks.decide(
        "free space",
        "SPACE",
        problems,
        ", ".join(f"{root}: {human_size(free[root].free_bytes)} free" for root in needs),
        "Free space there, or choose another storage_path.",
    )


def _lun(disk_id: str) -> int:
    digits = disk_id.removeprefix("lun")
    return int(digits) if digits.isdigit() else -1
