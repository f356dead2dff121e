"""A machine's disks at the mover: attached without taking them out of their machine, which is off
and so does not hold them, and detached without ever deleting a file."""

from __future__ import annotations

from dataclasses import replace

from models.errors import DiskMismatch, HypervisorFailed, MachineState, NoDiskSlot
from models.machine import AttachedDisk, OnPremisesDisk, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.facts import Drive, Machine, VirtualDisk, same_name
from platforms.hyperv.host import Host, ids_named
from platforms.hyperv.notes import Attachment, attachments, with_lines, without_lines

# A location that looks free may be a DVD drive's, or another process's of a moment ago.
_TRIES = 4


def attach(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> list[AttachedDisk]:
    """Attach every disk to the mover; those already there are found by their path.

    Raises:
        MachineState: The machine is not off, or the mover does not run.
        DiskMismatch: A file is not the one that preflight saw.
        NoDiskSlot: The mover's controller is full.
    """
    owner = host.resolve(spec, machine, call)
    if not owner.is_off:
        raise MachineState(
            f"Machine {owner.name!r} on {host.name} is {owner.state.lower()}; it must be off while "
            "its disks are at the mover.",
            hint="Turn it off; what it wrote meanwhile will be overwritten.",
        )
    files = host.virtual_disks([disk.path for disk in machine.disks], call)
    for disk, file in zip(machine.disks, files, strict=True):
        _must_be_the_same(host, disk, file)
    mover_id = host.mover_id(spec.mover, call)
    _claim(host, owner, spec, machine, run_id, call)
    with host.mover_lock:
        drives = _find_or_add(host, mover_id, [disk.path for disk in machine.disks], call)
    return [
        AttachedDisk(
            disk_id=disk.disk_id,
            slot=f"scsi-{drive.controller_number}-{drive.location}",
            size_bytes=file.size_bytes,
            identity=file.identity,
            path=disk.path,
            created=disk.created,
        )
        for disk, file, drive in zip(machine.disks, files, drives, strict=True)
    ]


def detach(
    host: Host, spec: FailbackSpec, disks: list[AttachedDisk], run_id: str, call: Call
) -> None:
    """Detach from the mover these files and whatever else this run has claimed, wherever they are
    attached there; gone already is fine. A file that only another run has claimed stays.

    The claims matter where an attempt to attach was killed before it could tell what it did.
    """
    names = host.names(call)
    owner_ids = ids_named(names, spec.on_premises_name)
    mover_ids = ids_named(names, host.settings.mover_vm(spec.mover))
    found = host.machines([*owner_ids, *mover_ids], call)
    owners, movers = found[: len(owner_ids)], found[len(owner_ids) :]
    claims = [claim for owner in owners for claim in attachments(owner.notes)]
    mine = [disk.path for disk in disks if not _of_another_run(claims, disk.path, run_id)]
    mine += [claim.path for claim in claims if claim.run_id == run_id and claim.path not in mine]
    for mover in movers:
        detach_from(host, mover, mine, call)
    lines = [Attachment(run_id, spec.machine, path).line for path in mine]
    for owner in owners:
        forget(host, owner, lines, call)


def detach_from(host: Host, mover: Machine, paths: list[str], call: Call) -> None:
    """Take these files out of the mover's machine."""
    held = [path for path in paths if mover.drive_of(path) is not None]
    if held:
        host.ask(
            f"detach {', '.join(held)} from the mover {mover.name!r}",
            scripts.remove_drives(mover.id, held),
            call,
        )


def forget(host: Host, owner: Machine, lines: list[str], call: Call) -> None:
    """Take a run's lines out of a machine's notes."""
    notes = without_lines(owner.notes, lines)
    if notes != owner.notes:
        host.ask(f"unmark {owner.name!r}", scripts.set_notes(owner.id, notes), call)


def _of_another_run(claims: list[Attachment], path: str, run_id: str) -> bool:
    runs = {claim.run_id for claim in claims if same_name(claim.path, path)}
    return bool(runs) and run_id not in runs


def _claim(
    host: Host,
    owner: Machine,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    run_id: str,
    call: Call,
) -> None:
    lines = [Attachment(run_id, spec.machine, disk.path).line for disk in machine.disks]
    notes = with_lines(owner.notes, lines)
    if notes != owner.notes:
        host.ask(f"mark {owner.name!r}", scripts.set_notes(owner.id, notes), call)


def _find_or_add(host: Host, mover_id: str, paths: list[str], call: Call) -> list[Drive]:
    """The drive of each file in the mover, in order, attached where it was not."""
    mover = host.machine(mover_id, call)
    if not mover.is_running:
        raise MachineState(
            f"Mover machine {mover.name!r} on {host.name} is {mover.state.lower()}.",
            hint="Start it, and its failback worker.",
        )
    found = []
    for path in paths:
        drive = mover.drive_of(path)
        if drive is None:
            mover, drive = _add(host, mover, path, call)
        found.append(drive)
    return found


def _add(host: Host, mover: Machine, path: str, call: Call) -> tuple[Machine, Drive]:
    """Attach one file; the mover as it is then, and the new drive."""
    refused: set[int] = set()
    while True:
        location = _free_location(host, mover, refused)
        drive = Drive(path, "SCSI", host.settings.mover_controller, location, "")
        try:
            host.ask(
                f"attach {path} to the mover {mover.name!r}",
                scripts.add_drive(mover.id, "SCSI", drive.controller_number, location, path),
                call,
            )
            return replace(mover, drives=(*mover.drives, drive)), drive
        except (HypervisorFailed, MachineState):
            refused.add(location)
            mover = host.machine(mover.id, call)
            present = mover.drive_of(path)
            if present is not None:
                return mover, present
            if len(refused) >= _TRIES:
                raise


def _free_location(host: Host, mover: Machine, refused: set[int]) -> int:
    settings = host.settings
    taken = refused | {
        drive.location
        for drive in mover.drives
        if drive.controller_type.upper() == "SCSI"
        and drive.controller_number == settings.mover_controller
    }
    for location in range(settings.first_location, settings.first_location + settings.slots):
        if location not in taken:
            return location
    raise NoDiskSlot(
        f"Mover machine {mover.name!r} on {host.name} has no free place on SCSI controller "
        f"{settings.mover_controller}.",
        hint="Use another mover, or wait until a run has ended.",
    )


def _must_be_the_same(host: Host, disk: OnPremisesDisk, file: VirtualDisk) -> None:
    if file.error:
        raise HypervisorFailed(f"{host.name} cannot read {disk.path}: {file.error}")
    if file.size_bytes != disk.size_bytes:
        raise DiskMismatch(
            f"{disk.path} on {host.name} has {file.size_bytes} bytes, not {disk.size_bytes} as in "
            "preflight.",
            hint="Run preflight again.",
        )
    if disk.identity and file.identity != disk.identity:
        raise DiskMismatch(
            f"{disk.path} on {host.name} is another disk than in preflight.",
            hint="Run preflight again.",
        )
