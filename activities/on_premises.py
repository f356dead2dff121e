"""What the run does on the hypervisor, one activity per operation of `OnPremisesPlatform`."""

from __future__ import annotations

from temporalio import activity

from activities.running import run_blocking
from models.calls import (
    ON_PREMISES_ADDRESSES,
    ON_PREMISES_ATTACH,
    ON_PREMISES_CHECKPOINT,
    ON_PREMISES_CHECKPOINT_BACK,
    ON_PREMISES_CHECKPOINT_KEEP,
    ON_PREMISES_CREATE,
    ON_PREMISES_DELETE,
    ON_PREMISES_DETACH,
    ON_PREMISES_INSPECT,
    ON_PREMISES_LEFTOVERS,
    ON_PREMISES_NETWORK,
    ON_PREMISES_NETWORK_BACK,
    ON_PREMISES_REMOVE_LEFTOVERS,
    ON_PREMISES_START,
    ON_PREMISES_TURN_OFF,
    DetachInput,
    InspectInput,
    LeftoverInput,
    MachineInput,
    NetworkBackInput,
)
from models.machine import AttachedDisk, Leftover, OnPremisesMachine, OnPremisesReport
from platforms.base import OnPremisesPlatform
from platforms.registry import Platforms


class OnPremisesActivities:
    """Activities of the control worker on the hypervisor's control plane."""

    def __init__(self, platforms: Platforms) -> None:
        self._platforms = platforms

    @activity.defn(name=ON_PREMISES_INSPECT)
    async def inspect(self, asked: InspectInput) -> OnPremisesReport:
        """The hypervisor's side of preflight; read-only."""
        return await run_blocking(
            lambda call: self._of(asked).inspect(asked.spec, asked.cloud, asked.spec.mover, call)
        )

    @activity.defn(name=ON_PREMISES_CREATE)
    async def create_machine(self, asked: MachineInput) -> OnPremisesMachine:
        """Create the machine and its disks, tagged with the run."""
        return await run_blocking(
            lambda call: self._of(asked).create_machine(
                asked.spec, asked.machine, asked.run_id, call
            )
        )

    @activity.defn(name=ON_PREMISES_DELETE)
    async def delete_machine(self, asked: MachineInput) -> None:
        """Delete a machine and disks this run created."""
        await run_blocking(
            lambda call: self._of(asked).delete_machine(
                asked.spec, asked.machine, asked.run_id, call
            )
        )

    @activity.defn(name=ON_PREMISES_ATTACH)
    async def attach_disks(self, asked: MachineInput) -> list[AttachedDisk]:
        """Attach the machine's disks to the mover."""
        return await run_blocking(
            lambda call: self._of(asked).attach_disks(asked.spec, asked.machine, asked.run_id, call)
        )

    @activity.defn(name=ON_PREMISES_DETACH)
    async def detach_disks(self, asked: DetachInput) -> None:
        """Detach disks from the mover; their files stay."""
        await run_blocking(
            lambda call: self._of(asked).detach_disks(asked.spec, asked.disks, asked.run_id, call)
        )

    @activity.defn(name=ON_PREMISES_NETWORK)
    async def apply_network(self, asked: MachineInput) -> None:
        """Connect the adapters as the spec says."""
        await run_blocking(
            lambda call: self._of(asked).apply_network(
                asked.spec, asked.machine, asked.spec.on_premises.adapters, call
            )
        )

    @activity.defn(name=ON_PREMISES_NETWORK_BACK)
    async def restore_network(self, asked: NetworkBackInput) -> None:
        """Put recorded adapter settings back."""
        await run_blocking(
            lambda call: self._of(asked).restore_network(
                asked.spec, asked.machine, asked.recorded, call
            )
        )

    @activity.defn(name=ON_PREMISES_ADDRESSES)
    async def set_static_addresses(self, asked: MachineInput) -> list[str]:
        """Give the running guest its static addresses; answers what could not be done."""
        return await run_blocking(
            lambda call: self._of(asked).set_static_addresses(asked.spec, asked.machine, call)
        )

    @activity.defn(name=ON_PREMISES_CHECKPOINT)
    async def take_checkpoint(self, asked: MachineInput) -> None:
        """Checkpoint the stopped machine."""
        await run_blocking(
            lambda call: self._of(asked).take_checkpoint(
                asked.spec, asked.machine, asked.run_id, call
            )
        )

    @activity.defn(name=ON_PREMISES_CHECKPOINT_BACK)
    async def discard_checkpoint(self, asked: MachineInput) -> None:
        """Return to the checkpoint and remove it."""
        await run_blocking(
            lambda call: self._of(asked).discard_checkpoint(
                asked.spec, asked.machine, asked.run_id, call
            )
        )

    @activity.defn(name=ON_PREMISES_CHECKPOINT_KEEP)
    async def keep_checkpoint_changes(self, asked: MachineInput) -> None:
        """Remove the checkpoint; what was written since stays."""
        await run_blocking(
            lambda call: self._of(asked).keep_checkpoint_changes(
                asked.spec, asked.machine, asked.run_id, call
            )
        )

    @activity.defn(name=ON_PREMISES_START)
    async def start(self, asked: MachineInput) -> None:
        """Start the machine."""
        await run_blocking(lambda call: self._of(asked).start(asked.spec, asked.machine, call))

    @activity.defn(name=ON_PREMISES_TURN_OFF)
    async def turn_off(self, asked: MachineInput) -> None:
        """Turn the machine off at once."""
        await run_blocking(lambda call: self._of(asked).turn_off(asked.spec, asked.machine, call))

    @activity.defn(name=ON_PREMISES_LEFTOVERS)
    async def leftovers(self, asked: LeftoverInput) -> list[Leftover]:
        """What bears a run's tag on the host."""
        return await run_blocking(lambda _call: self._of(asked).leftovers(asked.spec))

    @activity.defn(name=ON_PREMISES_REMOVE_LEFTOVERS)
    async def remove_leftovers(self, asked: LeftoverInput) -> list[Leftover]:
        """Remove exactly what is named, after seeing its tag again."""
        return await run_blocking(
            lambda call: self._of(asked).remove_leftovers(asked.spec, asked.leftovers, call)
        )

    def _of(
        self, asked: InspectInput | MachineInput | DetachInput | LeftoverInput
    ) -> OnPremisesPlatform:
        return self._platforms.on_premises(asked.spec)
