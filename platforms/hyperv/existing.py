"""Preflight of a machine that exists: is it off, whole and of the shape that comes home?"""

from __future__ import annotations

from models.machine import CloudMachine, OnPremisesDisk, OnPremisesMachine
from models.spec import FailbackSpec
from models.units import human_size
from platforms.base import Call
from platforms.hyperv import network
from platforms.hyperv.checks import Checks
from platforms.hyperv.facts import Drive, Machine, Overview, VirtualDisk, same_name
from platforms.hyperv.host import Host
from platforms.hyperv.notes import attachments, creation
from platforms.hyperv.pairing import Pairing, crossed, pair_disks
from platforms.hyperv.space import check_room_to_grow

_SECTOR_BYTES = 512


def check_existing(
    host: Host,
    spec: FailbackSpec,
    cloud: CloudMachine | None,
    overview: Overview,
    machine_id: str,
    checks: Checks,
    call: Call,
) -> OnPremisesMachine | None:
    """All checks of an existing machine, and its shape where the disks could be told apart."""
    found = host.machine(machine_id, call)
    _check_claims(found, checks)
    _check_state(found, checks)
    _check_adapters(spec, found, overview, checks)
    drives = [drive for drive in found.drives if drive.path and not drive.pass_through]
    files = {
        file.path.casefold(): file
        for file in host.virtual_disks([drive.path for drive in drives], call)
    }
    _check_drives(host, spec, found, drives, files, overview, checks)
    check_room_to_grow(host, list(files.values()), checks, call)
    if cloud is None:
        return None
    _check_generation(found, cloud, checks)
    return _check_disks(spec, found, cloud, drives, files, checks)


def _check_claims(found: Machine, checks: Checks) -> None:
    """Preflight comes before a run claims anything, so that every claim is another's."""
    runs = {claim.run_id: claim.machine for claim in attachments(found.notes)}
    mark = creation(found.notes)
    if mark is not None:
        runs[mark.run_id] = mark.machine
    checks.decide(
        "claimed by no run",
        "CLAIMED",
        [f"run {run_id} of {name!r} has claimed it" for run_id, name in sorted(runs.items())],
        "no run's mark in its notes",
        "Let that run end; if it is dead, `failback doctor` removes what it left.",
    )


def _check_state(found: Machine, checks: Checks) -> None:
    checks.decide(
        "machine is off",
        "NOT-OFF",
        [] if found.is_off else [f"{found.name} is {found.state.lower()}"],
        f"{found.name} is off",
        "Shut it down. What it has written since the failover to Azure will be overwritten.",
    )
    names = [checkpoint.name for checkpoint in found.checkpoints]
    checks.decide(
        "no checkpoints",
        "CHECKPOINTS",
        [f"{len(names)} checkpoint(s): {', '.join(names)}"] if names else [],
        "none",
        f"Remove them: Get-VMSnapshot -VMName '{found.name}' | Remove-VMSnapshot; then wait until "
        "Hyper-V has merged the disks.",
    )
    replicates = found.replication_state not in ("", "Disabled")
    checks.decide(
        "no Hyper-V replication",
        "REPLICATION",
        [f"replication is {found.replication_state}"] if replicates else [],
        "replication is disabled",
        f"Remove it: Remove-VMReplication -VMName '{found.name}'; it would send what is restored.",
    )
    checks.decide(
        "checkpoints allowed",
        "CHECKPOINT-TYPE",
        ["checkpoints are disabled"] if found.checkpoint_type == "Disabled" else [],
        found.checkpoint_type or "not said",
        f"Allow them: Set-VM -Name '{found.name}' -CheckpointType Standard. One is taken before "
        "the machine boots, so that a failback can be taken back.",
    )
    if found.automatic_checkpoints:
        checks.warning(
            "no automatic checkpoints",
            "AUTOMATIC-CHECKPOINTS",
            "Hyper-V takes a checkpoint of its own whenever the machine starts",
            f"Set-VM -Name '{found.name}' -AutomaticCheckpointsEnabled $false; else one stays "
            "behind after the failback.",
        )
    if found.has_heartbeat_service:
        checks.passed("heartbeat service", "enabled")
    else:
        checks.warning(
            "heartbeat service",
            "HEARTBEAT",
            "the integration service Heartbeat is not enabled",
            f"Enable-VMIntegrationService -VMName '{found.name}' -Name Heartbeat; without it the "
            "health check `heartbeat` cannot hold.",
        )


def _check_adapters(spec: FailbackSpec, found: Machine, overview: Overview, checks: Checks) -> None:
    wrong, switches, trunks = [], [], []
    for wanted in spec.on_premises.adapters:
        matching = found.adapters_named(wanted.name)
        if len(matching) != 1:
            wrong.append(f"{len(matching) or 'no'} adapters named {wanted.name!r}")
        elif wanted.vlan_id is not None and matching[0].vlan_mode not in ("Untagged", "Access"):
            trunks.append(f"{wanted.name!r} is in VLAN mode {matching[0].vlan_mode}")
        if wanted.switch is not None and not overview.has_switch(wanted.switch):
            switches.append(f"no switch named {wanted.switch!r}")
    has = ", ".join(adapter.name for adapter in found.adapters) or "none"
    checks.decide(
        "adapters",
        "ADAPTER",
        wrong,
        f"found those of the spec; the machine has {has}",
        f"Use the names that the machine has: {has}.",
    )
    checks.decide(
        "VLAN modes",
        "VLAN-MODE",
        trunks,
        "nothing that could not be put back",
        "Leave vlan_id out of the spec and set the VLAN by hand: such a mode could not be put "
        "back.",
    )
    checks.decide(
        "switches",
        "SWITCH",
        switches,
        "all switches of the spec exist",
        f"Create it, or use one of: {', '.join(overview.switches) or 'none exists'}.",
    )


def _check_drives(
    host: Host,
    spec: FailbackSpec,
    found: Machine,
    drives: list[Drive],
    files: dict[str, VirtualDisk],
    overview: Overview,
    checks: Checks,
) -> None:
    through = [drive.controller for drive in found.drives if drive.pass_through]
    checks.decide(
        "no pass-through disks",
        "PASS-THROUGH",
        [f"physical disks at {', '.join(through)}"] if through else [],
        "none",
        "Give the machine virtual hard disks of the same size instead.",
    )
    checks.decide(
        "disks readable",
        "DISK-READ",
        [f"{file.path}: {file.error}" for file in files.values() if file.error],
        f"{len(drives)} disk(s)",
        "Put the file back, or remove the drive from the machine.",
    )
    checks.decide(
        "no differencing disks",
        "DISK-CHAIN",
        [f"{f.path} over {f.parent or 'another'}" for f in files.values() if f.differencing],
        "every disk stands by itself",
        "Remove the checkpoints it comes from, or merge it (Merge-VHD).",
    )
    checks.decide(
        "disk format",
        "DISK-FORMAT",
        [problem for file in files.values() for problem in _format_problems(found, file)],
        "VHD or VHDX with sectors of 512 bytes",
        "Convert it (Convert-VHD); sectors of 4096 bytes need a new disk.",
    )
    checks.decide(
        "disks in no other use",
        "DISK-IN-USE",
        _in_use(host, spec, found, files, overview),
        "in no other machine and not mounted",
        "Detach it there (at the mover: `failback doctor`), or dismount it (Dismount-VHD).",
    )


def _format_problems(found: Machine, file: VirtualDisk) -> list[str]:
    if file.error:
        return []
    problems = []
    if file.logical_sector_bytes not in (0, _SECTOR_BYTES):
        problems.append(f"{file.path} has sectors of {file.logical_sector_bytes} bytes")
    if found.generation == 2 and file.format != "VHDX" and not file.differencing:
        problems.append(f"{file.path} is {file.format}, and generation 2 boots VHDX only")
    return problems


def _in_use(
    host: Host,
    spec: FailbackSpec,
    found: Machine,
    files: dict[str, VirtualDisk],
    overview: Overview,
) -> list[str]:
    mover = host.settings.mover_vm(spec.mover)
    problems = []
    elsewhere: set[str] = set()
    for other in overview.machines:
        held = [drive.path for drive in other.drives if drive.path.casefold() in files]
        if other.id == found.id or not held:
            continue
        elsewhere.update(path.casefold() for path in held)
        role = "the mover" if same_name(other.name, mover) else "machine"
        problems.append(f"{', '.join(held)} is attached to {role} {other.name}")
    if found.is_off:
        problems += [
            f"{file.path} is mounted on the host"
            for key, file in files.items()
            if file.attached and key not in elsewhere
        ]
    return problems


def _check_generation(found: Machine, cloud: CloudMachine, checks: Checks) -> None:
    wrong = []
    if found.generation != cloud.generation:
        wrong.append(f"generation {found.generation} here, {cloud.generation} in Azure")
    checks.decide(
        "generation",
        "GENERATION",
        wrong,
        f"generation {found.generation} on both sides",
        "A disk of one generation does not boot in the other: come home to a new machine "
        "(location: alternate), or convert the boot loader in Azure first.",
    )


def _check_disks(
    spec: FailbackSpec,
    found: Machine,
    cloud: CloudMachine,
    drives: list[Drive],
    files: dict[str, VirtualDisk],
    checks: Checks,
) -> OnPremisesMachine | None:
    pairing = pair_disks(cloud.disks, drives, found.generation, spec.on_premises.disks)
    checks.decide(
        "disks match one to one",
        "DISK-COUNT" if pairing.counts_differ else "DISK-MAP",
        pairing.problems or crossed_words(pairing, files),
        ", ".join(f"{pair.cloud.disk_id} is {pair.drive.path}" for pair in pairing.pairs),
        "Give the machine as many disks as Azure has."
        if pairing.counts_differ
        else "Say which is which in on_premises.disks, as `os: 'C:\\…\\a.vhdx'`, `lun0: …`.",
    )
    sizes = [
        f"{pair.cloud.disk_id}: {pair.cloud.size_bytes} bytes ({_human(pair.cloud.size_bytes)}) "
        f"in Azure, {file.size_bytes} ({_human(file.size_bytes)}) in {file.path}"
        for pair in pairing.pairs
        if (file := files[pair.drive.path.casefold()]).size_bytes != pair.cloud.size_bytes
    ]
    checks.decide(
        "disk sizes",
        "DISK-SIZE",
        sizes,
        "equal to the byte",
        "Sizes must be equal; nothing is ever cut. Grow a smaller one with Resize-VHD, or come "
        "home to a new machine (location: alternate).",
    )
    if len(pairing.pairs) != len(cloud.disks):
        return None
    return OnPremisesMachine(
        name=found.name,
        machine_id=found.id,
        generation=found.generation,
        disks=[
            OnPremisesDisk(
                disk_id=pair.cloud.disk_id,
                path=pair.drive.path,
                size_bytes=files[pair.drive.path.casefold()].size_bytes,
                controller=pair.drive.controller,
                identity=files[pair.drive.path.casefold()].identity,
            )
            for pair in pairing.pairs
        ],
        adapters=[network.recorded(adapter) for adapter in found.adapters],
    )


def crossed_words(pairing: Pairing, files: dict[str, VirtualDisk]) -> list[str]:
    """`crossed`, introduced for a reader."""
    lines = crossed(pairing, files)
    return [f"the order of the disks is not Azure's; by size {'; '.join(lines)}"] if lines else []


def _human(size: int) -> str:
    return human_size(size)
