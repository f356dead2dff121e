"""Checkpoints: what the machine writes after boot stays apart from the disks it came home with,
until a person says keep or discard."""

from __future__ import annotations

from models.errors import MachineState
from models.machine import OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.facts import Checkpoint, Machine
from platforms.hyperv.host import Host
from platforms.hyperv.notes import (
    checkpoint_name,
    created_disks,
    creation,
    disk_line,
    without_lines,
)

_LAYERS = (".avhdx", ".avhd")


def take(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> None:
    """Checkpoint the stopped machine once.

    Raises:
        MachineState: It is not off: a checkpoint would then not be of the disks that came home.
    """
    found = host.resolve(spec, machine, call)
    name = checkpoint_name(run_id)
    if _own(found, name):
        return
    _must_be_off(host, found, "take a checkpoint")
    host.ask(f"checkpoint {found.name!r}", scripts.take_checkpoint(found.id, name), call)


def discard(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> None:
    """Return to this run's checkpoint, remove it and wait until the disks are whole again."""
    found = host.resolve(spec, machine, call)
    for checkpoint in _own(found, checkpoint_name(run_id)):
        _must_be_off(host, found, "return to its checkpoint")
        # Killed between the two commands, the next attempt returns once more: nothing was written
        # since, so that is the same.
        host.ask(
            f"return {found.name!r} to its checkpoint",
            scripts.restore_checkpoint(found.id, checkpoint.id),
            call,
        )
        _remove(host, found, checkpoint, call)
    _wait_for_merge(host, found, call)


def keep(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
) -> None:
    """Remove this run's checkpoint and keep what was written since; the machine may run.

    This is the commit: a machine that the run created is from now on its owner's. The marks of the
    creation go first, so that no moment is left in which `doctor` could take it for a leftover.
    """
    found = host.resolve(spec, machine, call)
    mark = creation(found.notes)
    if mark is not None and mark.run_id == run_id:
        claims = [disk_line(path) for path in created_disks(found.notes)]
        notes = without_lines(found.notes, [mark.line, *claims])
        host.ask(f"unmark {found.name!r}", scripts.set_notes(found.id, notes), call)
    merge_own(host, found, run_id, call)


def merge_own(host: Host, machine: Machine, run_id: str, call: Call) -> None:
    """Remove this run's checkpoint, keep what was written since, and wait for the merge."""
    for checkpoint in _own(machine, checkpoint_name(run_id)):
        _remove(host, machine, checkpoint, call)
    _wait_for_merge(host, machine, call)


def _own(machine: Machine, name: str) -> list[Checkpoint]:
    # Exact: another run's id may begin with this one's.
    return [checkpoint for checkpoint in machine.checkpoints if checkpoint.name == name]


def _remove(host: Host, machine: Machine, checkpoint: Checkpoint, call: Call) -> None:
    host.ask(
        f"remove the checkpoint {checkpoint.name!r} of {machine.name!r}",
        scripts.remove_checkpoint(machine.id, checkpoint.id),
        call,
    )


def _wait_for_merge(host: Host, machine: Machine, call: Call) -> None:
    """Until no drive of a machine without checkpoints is a layer any more."""

    def merged() -> bool:
        now = host.machine(machine.id, call)
        # Layers under a checkpoint of somebody else are not ours to wait for.
        return bool(now.checkpoints) or not any(
            drive.path.lower().endswith(_LAYERS) for drive in now.drives
        )

    host.wait(
        f"merging the disks of {machine.name!r}",
        merged,
        call,
        seconds=host.settings.merge_timeout_seconds,
    )


def _must_be_off(host: Host, machine: Machine, purpose: str) -> None:
    if not machine.is_off:
        raise MachineState(
            f"Machine {machine.name!r} on {host.name} is {machine.state.lower()}; "
            f"it must be off to {purpose}.",
            hint="Turn it off.",
        )
