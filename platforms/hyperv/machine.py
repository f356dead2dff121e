"""Creating and deleting the machine of a run, so that a kill at any moment leaves nothing that the
next attempt, or the undo, does not find.

A created machine is born under a name that holds the run's id, marked in its notes, given disks
each of which is claimed in the notes before its file is made, and gets its own name last. Deleting
goes the other way: files first, the machine and with it the marks last.
"""

from __future__ import annotations

import re

from models.errors import MachineState
from models.machine import AdapterSettings, OnPremisesDisk, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import paths, scripts
from platforms.hyperv.checkpoint import merge_own
from platforms.hyperv.facts import Machine, Overview, VirtualDisk, same_name
from platforms.hyperv.host import Host
from platforms.hyperv.network import connect
from platforms.hyperv.notes import (
    Creation,
    birth_name,
    created_disks,
    creation,
    disk_line,
    with_lines,
)

_PLACE = re.compile(r"(IDE|SCSI) (\d+):(\d+)")
# Hyper-V takes memory in steps of 2 MiB.
_MEMORY_STEP = 2 * 2**20
# A fixed disk is written whole; slow storage writes some 50 MB/s.
_FIXED_BYTES_PER_SECOND = 50_000_000


def create(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> OnPremisesMachine:
    """Create the machine with its disks and adapters, or finish what an earlier attempt began.

    Raises:
        MachineState: A machine or file that this run did not make is in the way.
    """
    found = _born(host, spec, machine, run_id, call)
    _configure(host, found, spec, machine, run_id, call)
    found = _claim_disks(host, found.id, machine, call)
    disks = _make_disks(host, found, machine, call)
    _place_disks(host, found, machine, call)
    adapters = _make_adapters(host, found, machine, call)
    _name(host, found, machine, call)
    _settle_marks(host, found.id, spec, machine, run_id, call)
    return machine.model_copy(
        update={
            "machine_id": found.id,
            "created": True,
            "adapters": adapters,
            "disks": [
                disk.model_copy(update={"identity": disks[disk.path.casefold()].identity})
                for disk in machine.disks
            ],
        }
    )


def delete(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> None:
    """Delete what `create` made for this run, finished or not; nothing else.

    Raises:
        MachineState: The machine runs, or one of its disks is in another machine.
    """
    planned = {disk.path.casefold() for disk in machine.disks if disk.created}
    for found in own_machines(host.overview(call), spec.machine, run_id):
        files = [path for path in _own_files(found) if path.casefold() in planned]
        remove(host, spec, found, files, run_id, call)


def own_machines(overview: Overview, machine: str, run_id: str) -> list[Machine]:
    """Machines that this run created: marked, or still under their birth name without a mark."""
    mark = Creation(run_id, machine)
    return [
        found
        for found in overview.machines
        if creation(found.notes) == mark
        or (found.name == birth_name(run_id) and creation(found.notes) is None)
    ]


def remove(
    host: Host, spec: FailbackSpec, found: Machine, files: list[str], run_id: str, call: Call
) -> None:
    """Remove one machine that a run created, and these files of it."""
    if not found.is_off:
        raise MachineState(
            f"Machine {found.name!r} on {host.name} is {found.state.lower()} and is not deleted.",
            hint="Turn it off.",
        )
    if found.checkpoints:
        _merge_checkpoints(host, found, run_id, call)
    _detach_from_others(host, spec, found, files, call)
    if files:
        host.ask(f"delete the disks of {found.name!r}", scripts.remove_files(files), call)
    host.ask(f"delete {found.name!r}", scripts.remove_machine(found.id), call)


def parse_place(controller: str) -> tuple[str, int, int]:
    """`SCSI 0:1` to its parts.

    Raises:
        ValueError: It is written otherwise.
    """
    match = _PLACE.fullmatch(controller)
    if match is None:
        raise ValueError(f"{controller!r} is not a place such as 'SCSI 0:1'")
    return match[1], int(match[2]), int(match[3])


def _merge_checkpoints(host: Host, found: Machine, run_id: str, call: Call) -> None:
    """A checkpoint's layers would outlive the files they lie over."""
    merge_own(host, found, run_id, call)
    others = host.machine(found.id, call).checkpoints
    if others:
        raise MachineState(
            f"Machine {found.name!r} on {host.name} has checkpoints that this run did not take "
            f"({', '.join(checkpoint.name for checkpoint in others)}), and is not deleted.",
            hint="Remove them, or delete the machine by hand.",
        )


def _born(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> Machine:
    overview = host.overview(call)
    own = own_machines(overview, spec.machine, run_id)
    if own:
        return own[0]
    _refuse_taken_name(host, machine.name, call)
    folder = paths.join(spec.on_premises.storage_path or "", machine.name)
    answer = host.ask(
        f"create machine {machine.name!r}",
        scripts.new_machine(birth_name(run_id), machine.generation, _memory(machine), folder),
        call,
    )
    return host.machine(str(answer), call)


def _configure(
    host: Host,
    found: Machine,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    run_id: str,
    call: Call,
) -> None:
    marked = with_lines(found.notes, [Creation(run_id, spec.machine).line])
    host.ask(
        f"configure {machine.name!r}",
        scripts.configure_machine(found.id, machine.processors or 1, _memory(machine), marked),
        call,
    )


def _claim_disks(host: Host, machine_id: str, machine: OnPremisesMachine, call: Call) -> Machine:
    """Write the claims of all disks into the notes, after seeing that no file is in the way."""
    found = host.machine(machine_id, call)
    claimed = {path.casefold() for path in _own_files(found)}
    new = [disk.path for disk in machine.disks if disk.path.casefold() not in claimed]
    taken = host.existing(new, call)
    if taken:
        raise MachineState(
            f"{', '.join(sorted(taken))} on {host.name}: there is a file already that this run "
            "did not create.",
            hint="Move it away, or choose another storage_path.",
        )
    if new:
        notes = with_lines(found.notes, [disk_line(path) for path in new])
        host.ask(f"mark {machine.name!r}", scripts.set_notes(machine_id, notes), call)
    return found


def _make_disks(
    host: Host, found: Machine, machine: OnPremisesMachine, call: Call
) -> dict[str, VirtualDisk]:
    present = host.existing([disk.path for disk in machine.disks], call)
    for disk in machine.disks:
        if disk.path not in present:
            _make_disk(host, machine, disk, call)
    made = host.virtual_disks([disk.path for disk in machine.disks], call)
    for disk, virtual in zip(machine.disks, made, strict=True):
        if virtual.error or virtual.size_bytes != disk.size_bytes:
            raise MachineState(
                f"{disk.path} on {host.name} should have {disk.size_bytes} bytes, but "
                f"{virtual.error or f'has {virtual.size_bytes}'}.",
                hint="Delete the file if nothing else uses it, and try again.",
            )
    return {virtual.path.casefold(): virtual for virtual in made}


def _make_disk(host: Host, machine: OnPremisesMachine, disk: OnPremisesDisk, call: Call) -> None:
    fixed = host.settings.created_disk_fixed
    seconds = host.settings.script_timeout_seconds
    if fixed:
        seconds += disk.size_bytes / _FIXED_BYTES_PER_SECOND
    host.ask(
        f"create the disk {disk.path} of {machine.name!r}",
        scripts.new_disk(paths.folder_of(disk.path), disk.path, disk.size_bytes, fixed=fixed),
        call,
        seconds=seconds,
    )


def _place_disks(host: Host, found: Machine, machine: OnPremisesMachine, call: Call) -> None:
    for disk in machine.disks:
        if found.drive_of(disk.path):
            continue
        kind, number, location = parse_place(disk.controller)
        host.ask(
            f"attach {disk.path} to {machine.name!r}",
            scripts.add_drive(found.id, kind, number, location, disk.path),
            call,
        )
    boot = next((disk for disk in machine.disks if disk.disk_id == "os"), None)
    if machine.generation == 2 and boot is not None:
        host.ask(
            f"set the firmware of {machine.name!r}",
            scripts.set_firmware(
                found.id, parse_place(boot.controller)[2], _secure_boot(host, machine)
            ),
            call,
        )


def _secure_boot(host: Host, machine: OnPremisesMachine) -> str | None:
    """The template whose keys the system's boot loader is signed with."""
    if not host.settings.created_secure_boot:
        return None
    windows = machine.os_type.casefold() == "windows"
    return "MicrosoftWindows" if windows else "MicrosoftUEFICertificateAuthority"


def _make_adapters(
    host: Host, found: Machine, machine: OnPremisesMachine, call: Call
) -> list[AdapterSettings]:
    """Adapters by their order, because a new machine's first one is named in the host's language;
    returns them with the names that they have."""
    for wanted in machine.adapters[len(found.adapters) :]:
        host.ask(
            f"add an adapter to {machine.name!r}", scripts.add_adapter(found.id, wanted.name), call
        )
    now = host.machine(found.id, call)
    made = []
    for wanted, adapter in zip(machine.adapters, now.adapters, strict=False):
        connect(host, now, adapter, wanted.switch, call)
        made.append(wanted.model_copy(update={"name": adapter.name}))
    return made


def _name(host: Host, found: Machine, machine: OnPremisesMachine, call: Call) -> None:
    bearers = host.ids_of(machine.name, call)
    if found.id in bearers:
        return
    _refuse_taken_name(host, machine.name, call)
    host.ask(f"name {machine.name!r}", scripts.rename_machine(found.id, machine.name), call)


def _settle_marks(
    host: Host,
    machine_id: str,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    run_id: str,
    call: Call,
) -> None:
    """See that every mark stands. A command that a killed attempt had under way may have ended
    late and have put older notes back."""
    notes = host.machine(machine_id, call).notes
    claims = [disk_line(disk.path) for disk in machine.disks]
    settled = with_lines(notes, [Creation(run_id, spec.machine).line, *claims])
    if settled != notes:
        host.ask(f"mark {machine.name!r}", scripts.set_notes(machine_id, settled), call)


def _own_files(found: Machine) -> list[str]:
    """Disk files that a run made for its own machine: claimed in the notes, or already in it, where
    nothing is put but what was claimed."""
    claimed = created_disks(found.notes)
    present = {path.casefold() for path in claimed}
    return [
        *claimed,
        *(drive.path for drive in found.drives if drive.path.casefold() not in present),
    ]


def _refuse_taken_name(host: Host, name: str, call: Call) -> None:
    if host.ids_of(name, call):
        raise MachineState(
            f"There is a machine {name!r} on {host.name} already, and this run did not create it.",
            hint="Rename it, or give this one another name (on_premises.vm).",
        )


def _detach_from_others(
    host: Host, spec: FailbackSpec, found: Machine, files: list[str], call: Call
) -> None:
    """Take the files out of the mover; a file in any other machine stops the deletion."""
    wanted = {path.casefold() for path in files}
    mover = host.settings.mover_vm(spec.mover)
    for other in host.overview(call).machines:
        held = [drive.path for drive in other.drives if drive.path.casefold() in wanted]
        if other.id == found.id or not held:
            continue
        if not same_name(other.name, mover):
            raise MachineState(
                f"{', '.join(held)} of {found.name!r} is also in machine {other.name!r} on "
                f"{host.name}, and is not deleted.",
                hint="Take it out of that machine.",
            )
        host.ask(
            f"detach {', '.join(held)} from the mover", scripts.remove_drives(other.id, held), call
        )


def _memory(machine: OnPremisesMachine) -> int:
    wanted = machine.memory_bytes or 2**30
    return -(-wanted // _MEMORY_STEP) * _MEMORY_STEP
