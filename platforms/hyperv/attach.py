"""A machine's disks at the mover: attached without taking them out of their machine, which is off
and so does not hold them, and detached without ever deleting a file."""

from __future__ import annotations

from models.errors import (
    DiskMismatch,
    FailbackError,
    HypervisorFailed,
    MachineNotFound,
    MachineState,
    NoDiskSlot,
)
from models.machine import AttachedDisk, OnPremisesDisk, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.facts import Drive, Machine, VirtualDisk, same_name
from platforms.hyperv.host import Host
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
    mover = host.mover(spec.mover, call)
    _claim(host, owner, spec, machine, run_id, call)
    return [
        _attach_one(host, mover.id, disk, file, call)
        for disk, file in zip(machine.disks, files, strict=True)
    ]


def detach(
    host: Host, spec: FailbackSpec, disks: list[AttachedDisk], run_id: str, call: Call
) -> None:
    """Detach these files from the mover, wherever they are attached there; gone already is fine.
    A file that only another run has claimed stays."""
    owners = [host.machine(machine_id, call) for machine_id in _owner_ids(host, spec, call)]
    claims = [claim for owner in owners for claim in attachments(owner.notes)]
    mine = [disk.path for disk in disks if not _of_another_run(claims, disk.path, run_id)]
    detach_paths(host, spec.mover, mine, call)
    lines = [Attachment(run_id, spec.machine, path).line for path in mine]
    for owner in owners:
        forget(host, owner, lines, call)


def detach_paths(host: Host, mover: str, paths: list[str], call: Call) -> None:
    """Take these files out of the mover's machine; a mover that is gone holds nothing."""
    try:
        found = host.mover(mover, call)
    except MachineNotFound:
        return
    for path in paths:
        if found.drive_of(path) is not None:
            host.ask(
                f"detach {path} from the mover {found.name!r}",
                scripts.remove_drive(found.id, path),
                call,
            )


def forget(host: Host, owner: Machine, lines: list[str], call: Call) -> None:
    """Take a run's lines out of a machine's notes."""
    notes = without_lines(owner.notes, lines)
    if notes != owner.notes:
        host.ask(f"unmark {owner.name!r}", scripts.set_notes(owner.id, notes), call)


def _owner_ids(host: Host, spec: FailbackSpec, call: Call) -> list[str]:
    return host.ids_of(spec.on_premises_name, call)


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


def _attach_one(
    host: Host, mover_id: str, disk: OnPremisesDisk, file: VirtualDisk, call: Call
) -> AttachedDisk:
    with host.mover_lock:
        drive = _find_or_add(host, mover_id, disk.path, call)
    return AttachedDisk(
        disk_id=disk.disk_id,
        slot=f"scsi-{drive.controller_number}-{drive.location}",
        size_bytes=file.size_bytes,
        identity=file.identity,
        path=disk.path,
        created=disk.created,
    )


def _find_or_add(host: Host, mover_id: str, path: str, call: Call) -> Drive:
    refused: set[int] = set()
    failure: FailbackError | None = None
    while True:
        mover = host.machine(mover_id, call)
        drive = mover.drive_of(path)
        if drive is not None:
            return drive
        if failure is not None and len(refused) >= _TRIES:
            raise failure
        if not mover.is_running:
            raise MachineState(
                f"Mover machine {mover.name!r} on {host.name} is {mover.state.lower()}.",
                hint="Start it, and its failback worker.",
            )
        location = _free_location(host, mover, refused)
        try:
            host.ask(
                f"attach {path} to the mover {mover.name!r}",
                scripts.add_drive(mover.id, "SCSI", host.settings.mover_controller, location, path),
                call,
            )
        except (HypervisorFailed, MachineState) as error:
            failure = error
            refused.add(location)


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
