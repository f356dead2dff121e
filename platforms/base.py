"""What every platform can do, whatever it is called: two protocols that the activities speak.

`CloudPlatform` is the side the machine comes from, `OnPremisesPlatform` the side it comes home to.
All methods block (activities run them in threads), are safe to call again with the same arguments,
and raise only errors of `models.errors`. A long call looks at `Call.stop` between its polls and
raises `Stopped`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from models.machine import (
    AdapterSettings,
    AttachedDisk,
    CloudMachine,
    CloudReport,
    Leftover,
    MachineHealth,
    OnPremisesMachine,
    OnPremisesReport,
    Snapshot,
)
from models.spec import AzureMachineRef, FailbackSpec, NetworkAdapter


def _recall_nothing(_operation: str) -> str | None:
    return None


def _remember_nothing(_operation: str, _token: str | None) -> None:
    return None


@dataclass(frozen=True)
class Call:
    """What a long call needs from its caller.

    Attributes:
        stop: Set when the caller was cancelled or its worker shuts down.
        recall: The continuation token of an operation begun by an earlier attempt, by its name.
        remember: Keeps a continuation token where it outlives this process; `None` forgets it.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    recall: Callable[[str], str | None] = _recall_nothing
    remember: Callable[[str, str | None], None] = _remember_nothing


class SourceRange(NamedTuple):
    """A range of a snapshot in bytes; `cleared` ranges are zeros at the target."""

    offset: int
    length: int
    cleared: bool


class SnapshotReader(Protocol):
    """Read access to one snapshot and, where a base is given, to what changed since. Ranges come in
    offset order, clipped to the disk's size, fetched in windows so that memory stays bounded."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def ca_file(self) -> str | None:
        """CA file for the data endpoint; the system's store if none."""

    def url(self, renew: bool) -> str:
        """The secret URL to read from; `renew` asks for a fresh grant after a refusal."""

    def allocated(self) -> Iterator[SourceRange]:
        """Ranges that hold data; everything else is zeros."""

    def changed(self) -> Iterator[SourceRange]:
        """Ranges written or cleared since the base.

        Raises:
            BaseUnavailable: The service cannot tell; compare instead.
        """


class CloudPlatform(Protocol):
    """The cloud that the machine comes from."""

    def inspect(self, source: AzureMachineRef, call: Call) -> CloudReport:
        """Every read-only check at once; never raises for what a check can report."""

    def take_snapshots(
        self,
        source: AzureMachineRef,
        machine: CloudMachine,
        names: dict[str, str],
        tags: dict[str, str],
        call: Call,
    ) -> list[Snapshot]:
        """One incremental snapshot per disk id, by name; made once."""

    def open_snapshot(
        self, snapshot: Snapshot, base: Snapshot | None, call: Call
    ) -> AbstractContextManager[SnapshotReader]:
        """Grant read access. The grant stays until `release_snapshots`, so that another attempt's
        access is never taken away under it."""

    def release_snapshots(
        self, revoke: list[Snapshot], delete: list[Snapshot], run_id: str, call: Call
    ) -> None:
        """Revoke grants, then delete snapshots that bear this run's tag; gone already is fine."""

    def power_state(self, source: AzureMachineRef) -> str:
        """`running`, `stopped`, `deallocated`, `starting`, … as the instance view says; `gone` if
        the machine does not exist."""

    def shut_down_guest(self, source: AzureMachineRef, timeout_seconds: float, call: Call) -> None:
        """Ask the guest to shut down.

        Raises:
            GuestShutdownRefused: It still runs after the timeout.
        """

    def power_off(self, source: AzureMachineRef, call: Call) -> None:
        """Power off without asking the guest."""

    def deallocate(self, source: AzureMachineRef, call: Call) -> None:
        """Deallocate, and see by the instance view that it is."""

    def start(self, source: AzureMachineRef, call: Call) -> None:
        """Start, and see by the instance view that it runs."""

    def delete_machine(
        self, source: AzureMachineRef, machine: CloudMachine, call: Call
    ) -> list[str]:
        """Delete the machine and exactly its disks named in `machine`; network interfaces and any
        disk attached since are kept. Returns the names of what was deleted."""

    def leftovers(self, source: AzureMachineRef) -> list[Leftover]:
        """Snapshots that bear a run's tag."""

    def remove_leftovers(
        self, source: AzureMachineRef, leftovers: list[Leftover], call: Call
    ) -> list[Leftover]:
        """Remove exactly these, after seeing each one's tag again; returns those removed."""


class OnPremisesPlatform(Protocol):
    """The hypervisor that the machine comes home to."""

    def inspect(
        self, spec: FailbackSpec, cloud: CloudMachine | None, mover: str, call: Call
    ) -> OnPremisesReport:
        """Every read-only check at once, and the machine as it is or as it would be created."""

    def create_machine(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> OnPremisesMachine:
        """Create the machine and its disks, tagged with the run. An existing machine with the same
        name and another tag is never taken over."""

    def delete_machine(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Delete a machine this run created, and the disks this run created, nothing else."""

    def attach_disks(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> list[AttachedDisk]:
        """Attach every disk to the spec's mover; finds those already attached."""

    def detach_disks(
        self, spec: FailbackSpec, disks: list[AttachedDisk], run_id: str, call: Call
    ) -> None:
        """Detach the disks from the mover without deleting their files."""

    def apply_network(
        self,
        spec: FailbackSpec,
        machine: OnPremisesMachine,
        adapters: list[NetworkAdapter],
        call: Call,
    ) -> None:
        """Connect adapters as asked: switch, VLAN, MAC address."""

    def restore_network(
        self,
        spec: FailbackSpec,
        machine: OnPremisesMachine,
        recorded: list[AdapterSettings],
        call: Call,
    ) -> None:
        """Put recorded adapter settings back."""

    def set_static_addresses(
        self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call
    ) -> list[str]:
        """Give the running guest the static addresses of the spec; returns what could not be done,
        in words."""

    def take_checkpoint(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Checkpoint the stopped machine, so that what it writes after boot can be thrown away."""

    def discard_checkpoint(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Return to this run's checkpoint and remove it; waits until the disks are merged."""

    def keep_checkpoint_changes(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Remove this run's checkpoint and keep what the machine wrote since."""

    def start(self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
        """Start the machine; fine if it runs."""

    def turn_off(self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
        """Turn the machine off at once; fine if it is off."""

    def health(self, spec: FailbackSpec, machine: OnPremisesMachine) -> MachineHealth:
        """State, heartbeat and addresses."""

    def leftovers(self, spec: FailbackSpec) -> list[Leftover]:
        """Machines, checkpoints and mover attachments that bear a run's tag."""

    def remove_leftovers(
        self, spec: FailbackSpec, leftovers: list[Leftover], call: Call
    ) -> list[Leftover]:
        """Remove exactly these, after seeing each one's tag again; returns those removed."""
