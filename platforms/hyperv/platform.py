"""The on-premises platform for Hyper-V: which host a spec means, and which module answers."""

from __future__ import annotations

from collections.abc import Mapping

from models.errors import InvalidConfiguration
from models.machine import (
    AdapterSettings,
    AttachedDisk,
    CloudMachine,
    Leftover,
    MachineHealth,
    OnPremisesMachine,
    OnPremisesReport,
)
from models.spec import FailbackSpec, NetworkAdapter
from platforms.base import Call
from platforms.hyperv import attach, checkpoint, network, power
from platforms.hyperv import inspect as preflight
from platforms.hyperv import leftovers as remains
from platforms.hyperv import machine as lifecycle
from platforms.hyperv.host import Host
from platforms.hyperv.settings import HyperVHost


class HyperVPlatform:
    """Implements `platforms.base.OnPremisesPlatform` over WinRM. Safe for use by many threads.

    Args:
        hosts: Hosts by the name that specs call them.
    """

    def __init__(self, hosts: Mapping[str, HyperVHost]) -> None:
        self._hosts = {name: Host(name, settings) for name, settings in hosts.items()}

    def close(self) -> None:
        """Close idle connections to all hosts."""
        for host in self._hosts.values():
            host.close()

    def inspect(
        self, spec: FailbackSpec, cloud: CloudMachine | None, mover: str, call: Call
    ) -> OnPremisesReport:
        """Every read-only check at once, and the machine as it is or as it would be created."""
        return preflight.inspect(self._host(spec), spec, cloud, mover, call)

    def create_machine(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> OnPremisesMachine:
        """Create the machine and its disks, marked with the run."""
        return lifecycle.create(self._host(spec), spec, machine, run_id, call)

    def delete_machine(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Delete a machine this run created, and the disks this run created, nothing else."""
        lifecycle.delete(self._host(spec), spec, machine, run_id, call)

    def attach_disks(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> list[AttachedDisk]:
        """Attach every disk to the spec's mover; finds those already attached."""
        return attach.attach(self._host(spec), spec, machine, run_id, call)

    def detach_disks(
        self, spec: FailbackSpec, disks: list[AttachedDisk], run_id: str, call: Call
    ) -> None:
        """Detach the disks from the mover without deleting their files."""
        attach.detach(self._host(spec), spec, disks, run_id, call)

    def apply_network(
        self,
        spec: FailbackSpec,
        machine: OnPremisesMachine,
        adapters: list[NetworkAdapter],
        call: Call,
    ) -> None:
        """Connect adapters as asked: switch, VLAN, MAC address."""
        network.apply(self._host(spec), spec, machine, adapters, call)

    def restore_network(
        self,
        spec: FailbackSpec,
        machine: OnPremisesMachine,
        recorded: list[AdapterSettings],
        call: Call,
    ) -> None:
        """Put recorded adapter settings back."""
        network.restore(self._host(spec), spec, machine, recorded, call)

    def set_static_addresses(
        self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call
    ) -> list[str]:
        """Give the running guest its static addresses; returns what could not be done."""
        return network.set_static_addresses(self._host(spec), spec, machine, call)

    def take_checkpoint(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Checkpoint the stopped machine."""
        checkpoint.take(self._host(spec), spec, machine, run_id, call)

    def discard_checkpoint(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Return to this run's checkpoint and remove it; waits until the disks are merged."""
        checkpoint.discard(self._host(spec), spec, machine, run_id, call)

    def keep_checkpoint_changes(
        self, spec: FailbackSpec, machine: OnPremisesMachine, run_id: str, call: Call
    ) -> None:
        """Remove this run's checkpoint and keep what the machine wrote since."""
        checkpoint.keep(self._host(spec), spec, machine, run_id, call)

    def start(self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
        """Start the machine; fine if it runs."""
        power.start(self._host(spec), spec, machine, call)

    def turn_off(self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
        """Turn the machine off at once; fine if it is off."""
        power.turn_off(self._host(spec), spec, machine, call)

    def health(self, spec: FailbackSpec, machine: OnPremisesMachine) -> MachineHealth:
        """State, heartbeat and addresses."""
        return power.health(self._host(spec), spec, machine)

    def leftovers(self, spec: FailbackSpec) -> list[Leftover]:
        """Machines, checkpoints and mover attachments that bear a run's mark."""
        return remains.find(self._host(spec), spec)

    def remove_leftovers(
        self, spec: FailbackSpec, leftovers: list[Leftover], call: Call
    ) -> list[Leftover]:
        """Remove exactly these, after seeing each one's mark again; returns those removed."""
        return remains.remove(self._host(spec), spec, leftovers, call)

    def _host(self, spec: FailbackSpec) -> Host:
        name = spec.on_premises.host
        host = self._hosts.get(name)
        if host is None:
            raise InvalidConfiguration(
                f"The spec names host {name!r}, which the worker's configuration has not.",
                hint=f"It has: {', '.join(sorted(self._hosts)) or 'none'}.",
            )
        return host
