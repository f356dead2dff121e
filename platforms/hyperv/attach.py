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
        MachineState: The machine is not off, another run has claimed it, or the mover does not
            run.
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
    with host.mover_lock:
        _claim(host, owner.id, spec, machine, run_id, call)
        drives = _find_or_add(host, mover_id, [disk.path for disk in machine.disks], call)
        # Another process may have written its claims over ours from notes that it had read before.
        _refuse_rivals(host, host.machine(owner.id, call), run_id)
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
    attached there; gone already is fine. A file that another run has claimed stays: of two that
    have, the last to let go takes it out.

    The claims matter where an attempt to attach was killed before it could tell what it did.

    Raises:
        MachineNotFound: The mover is not there, though this run has claims.
    """
    with host.mover_lock:
        _let_go(host, spec, disks, run_id, call)


def _let_go(
    host: Host, spec: FailbackSpec, disks: list[AttachedDisk], run_id: str, call: Call
) -> None:
    names = host.names(call)
    owner_ids = ids_named(names, spec.on_premises_name)
    mover_ids = ids_named(names, host.settings.mover_vm(spec.mover))
    found = host.machines([*owner_ids, *mover_ids], call)
    owners, movers = found[: len(owner_ids)], found[len(owner_ids) :]
    claims = [claim for owner in owners for claim in attachments(owner.notes)]
    claimed = [claim for claim in claims if claim.run_id == run_id]
    paths = dict.fromkeys([*(disk.path for disk in disks), *(claim.path for claim in claimed)])
    if not movers and (claimed or (paths and not owners)):
        # Renamed, it may still hold the disks; the claims stay until that is known.
        host.mover_id(spec.mover, call)
    mine = [path for path in paths if not _of_another_run(claims, path, run_id)]
    for mover in movers:
        detach_from(host, mover, mine, call)
    lines = [claim.line for claim in claimed]
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
    return any(claim.run_id != run_id for claim in claims if same_name(claim.path, path))


def _claim(
    host: Host,
    owner_id: str,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    run_id: str,
    call: Call,
) -> None:
    """Write this run's claims into the machine's notes, unless another run has claimed it; read
    them again, because another process may have done the same at the same moment."""
    owner = host.machine(owner_id, call)
    _refuse_rivals(host, owner, run_id)
    lines = [Attachment(run_id, spec.machine, disk.path).line for disk in machine.disks]
    notes = with_lines(owner.notes, lines)
    if notes == owner.notes:
        return
    host.ask(f"mark {owner.name!r}", scripts.set_notes(owner.id, notes), call)
    after = host.machine(owner_id, call)
    try:
        _refuse_rivals(host, after, run_id)
    except MachineState:
        forget(host, after, lines, call)
        raise


def _refuse_rivals(host: Host, owner: Machine, run_id: str) -> None:
    claims = attachments(owner.notes)
    rivals = sorted({claim.run_id for claim in claims if claim.run_id != run_id})
    if rivals:
        raise MachineState(
            f"Machine {owner.name!r} on {host.name} is claimed by run {', '.join(rivals)}.",
            hint="Let that run end; if it is dead, `failback doctor` removes what it left.",
        )


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
