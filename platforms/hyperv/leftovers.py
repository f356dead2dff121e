"""What runs left behind on a Hyper-V host, by the marks in machines' notes and by the names that
hold a run's id. Without a mark nothing is a leftover, however much it looks like one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from models.errors import FailbackError, HypervisorDenied, HypervisorUnreachable, Stopped
from models.machine import Leftover
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import attach, checkpoint, machine
from platforms.hyperv.facts import Machine, Overview
from platforms.hyperv.host import Host
from platforms.hyperv.notes import (
    BIRTH_PREFIX,
    Attachment,
    attachments,
    created_disks,
    creation,
    run_of,
)

_log = logging.getLogger(__name__)

_MACHINE = "machine"
_CHECKPOINT = "checkpoint"
_ATTACHED = "attached-disk"


def find(host: Host, spec: FailbackSpec, call: Call | None = None) -> list[Leftover]:
    """Machines, checkpoints and mover attachments of any run on the spec's host."""
    overview = host.overview(call)
    found: list[Leftover] = []
    for vm in overview.machines:
        found += _machine_leftovers(host, vm)
        found += _checkpoint_leftovers(host, vm)
        found += _attachment_leftovers(host, spec, overview, vm)
    return found


def remove(host: Host, spec: FailbackSpec, leftovers: list[Leftover], call: Call) -> list[Leftover]:
    """Remove exactly these, after finding each one again; disks first, machines last."""
    present = find(host, spec, call)
    removed = []
    verbs: list[tuple[str, Callable[[Host, FailbackSpec, Leftover, Call], None]]] = [
        (_ATTACHED, _remove_attachment),
        (_CHECKPOINT, _remove_checkpoint),
        (_MACHINE, _remove_machine),
    ]
    for kind, verb in verbs:
        for leftover in leftovers:
            if leftover.kind != kind or leftover not in present:
                continue
            try:
                verb(host, spec, leftover, call)
            except (Stopped, HypervisorUnreachable, HypervisorDenied):
                raise
            except FailbackError as error:
                # One that cannot be removed, such as a machine that runs, does not keep the others.
                _log.warning("%s %s stays: %s", kind, leftover.name, error)
                continue
            removed.append(leftover)
    return removed


def _machine_leftovers(host: Host, vm: Machine) -> list[Leftover]:
    mark = creation(vm.notes)
    if mark is not None:
        return [_leftover(_MACHINE, vm.name, host.name, mark.run_id, mark.machine)]
    run_id = run_of(vm.name)
    # Killed between birth and mark: it cannot have disks yet.
    if run_id is not None and not vm.drives:
        return [_leftover(_MACHINE, vm.name, host.name, run_id, "")]
    return []


def _checkpoint_leftovers(host: Host, vm: Machine) -> list[Leftover]:
    return [
        _leftover(_CHECKPOINT, point.name, f"{host.name}/{vm.name}", run_id, vm.name)
        for point in vm.checkpoints
        if (run_id := run_of(point.name)) is not None
    ]


def _attachment_leftovers(
    host: Host, spec: FailbackSpec, overview: Overview, vm: Machine
) -> list[Leftover]:
    """Marks in the notes, whether the disk is still at a mover or only the mark was left."""
    return [
        _leftover(
            _ATTACHED,
            claim.path,
            f"{host.name}/{_holder(host, spec, overview, claim.path)}",
            claim.run_id,
            claim.machine,
        )
        for claim in attachments(vm.notes)
    ]


def _mover_names(host: Host, spec: FailbackSpec) -> list[str]:
    return sorted({host.settings.mover_vm(spec.mover), *host.settings.mover_vms.values()})


def _holder(host: Host, spec: FailbackSpec, overview: Overview, path: str) -> str:
    """The mover's machine that holds the disk; the spec's mover if none does."""
    for name in _mover_names(host, spec):
        if any(vm.drive_of(path) for vm in overview.named(name)):
            return name
    return host.settings.mover_vm(spec.mover)


def _remove_attachment(host: Host, spec: FailbackSpec, leftover: Leftover, call: Call) -> None:
    overview = host.overview(call)
    for name in _mover_names(host, spec):
        for mover in overview.named(name):
            attach.detach_from(host, mover, [leftover.name], call)
    line = Attachment(leftover.run_id, leftover.machine, leftover.name).line
    for owner in overview.machines:
        attach.forget(host, owner, [line], call)


def _remove_checkpoint(host: Host, spec: FailbackSpec, leftover: Leftover, call: Call) -> None:
    """Keep what was written since: of the two ways the one that destroys nothing."""
    for vm in host.overview(call).named(leftover.machine):
        if any(point.name == leftover.name for point in vm.checkpoints):
            run_id = leftover.name.removeprefix(BIRTH_PREFIX)
            checkpoint.merge_own(host, vm, run_id, call)


def _remove_machine(host: Host, spec: FailbackSpec, leftover: Leftover, call: Call) -> None:
    for vm in host.overview(call).named(leftover.name):
        if leftover in _machine_leftovers(host, vm):
            machine.remove(host, spec, vm, created_disks(vm.notes), leftover.run_id, call)


def _leftover(kind: str, name: str, place: str, run_id: str, machine_name: str) -> Leftover:
    return Leftover(kind=kind, name=name, place=place, run_id=run_id, machine=machine_name)
