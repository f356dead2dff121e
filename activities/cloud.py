"""What the run does in Azure, one activity per operation of `CloudPlatform`."""

from __future__ import annotations

from temporalio import activity

from activities.running import run_blocking
from models.calls import (
    CLOUD_DEALLOCATE,
    CLOUD_DELETE,
    CLOUD_INSPECT,
    CLOUD_LEFTOVERS,
    CLOUD_POWER_OFF,
    CLOUD_RELEASE,
    CLOUD_REMOVE_LEFTOVERS,
    CLOUD_REQUIRE_OFF,
    CLOUD_SHUT_DOWN,
    CLOUD_SNAPSHOT,
    CLOUD_START,
    CloudDeleteInput,
    LeftoverInput,
    ReleaseInput,
    SnapshotInput,
    SpecInput,
)
from models.errors import AzureConflict
from models.machine import CloudReport, Leftover, Snapshot
from platforms.base import Call, CloudPlatform


class CloudActivities:
    """Activities of the control worker on the cloud's control plane."""

    def __init__(self, cloud: CloudPlatform) -> None:
        self._cloud = cloud

    @activity.defn(name=CLOUD_INSPECT)
    async def inspect(self, asked: SpecInput) -> CloudReport:
        """Azure's side of preflight; read-only."""
        return await run_blocking(lambda call: self._cloud.inspect(asked.spec.azure, call))

    @activity.defn(name=CLOUD_SNAPSHOT)
    async def take_snapshots(self, asked: SnapshotInput) -> list[Snapshot]:
        """One incremental snapshot per disk, tagged with the run."""
        tags = {"failback-run": asked.run_id, "failback-machine": asked.spec.machine}
        return await run_blocking(
            lambda call: self._cloud.take_snapshots(
                asked.spec.azure, asked.cloud, asked.names, tags, call
            )
        )

    @activity.defn(name=CLOUD_RELEASE)
    async def release_snapshots(self, asked: ReleaseInput) -> None:
        """End read grants; delete snapshots of this run."""
        await run_blocking(
            lambda call: self._cloud.release_snapshots(
                asked.revoke, asked.delete, asked.run_id, call
            )
        )

    @activity.defn(name=CLOUD_SHUT_DOWN)
    async def shut_down_guest(self, asked: SpecInput) -> None:
        """Ask the guest to shut down, within the spec's time."""
        timeout = asked.spec.shutdown.graceful_timeout
        await run_blocking(
            lambda call: self._cloud.shut_down_guest(asked.spec.azure, timeout, call)
        )

    @activity.defn(name=CLOUD_POWER_OFF)
    async def power_off(self, asked: SpecInput) -> None:
        """Power off without asking the guest."""
        await run_blocking(lambda call: self._cloud.power_off(asked.spec.azure, call))

    @activity.defn(name=CLOUD_DEALLOCATE)
    async def deallocate(self, asked: SpecInput) -> None:
        """Deallocate, and see that it is."""
        await run_blocking(lambda call: self._cloud.deallocate(asked.spec.azure, call))

    @activity.defn(name=CLOUD_REQUIRE_OFF)
    async def require_off(self, asked: SpecInput) -> None:
        """Both machines must never run: see that nobody has started this one since."""

        def work(_call: Call) -> None:
            state = self._cloud.power_state(asked.spec.azure)
            if state not in ("deallocated", "stopped"):
                raise AzureConflict(
                    f"{asked.spec.azure.vm} is {state} in Azure although it was shut down for the "
                    "failover; the on-premises machine was not started.",
                    hint="Abort, to go on in Azure. Or stop it and retry: what it wrote since the "
                    "last round is then lost.",
                )

        await run_blocking(work)

    @activity.defn(name=CLOUD_START)
    async def start(self, asked: SpecInput) -> None:
        """Start, and see it run."""
        await run_blocking(lambda call: self._cloud.start(asked.spec.azure, call))

    @activity.defn(name=CLOUD_DELETE)
    async def delete_machine(self, asked: CloudDeleteInput) -> list[str]:
        """Delete the machine and its disks; answers what was deleted."""
        return await run_blocking(
            lambda call: self._cloud.delete_machine(asked.spec.azure, asked.cloud, call)
        )

    @activity.defn(name=CLOUD_LEFTOVERS)
    async def leftovers(self, asked: LeftoverInput) -> list[Leftover]:
        """What bears a run's tag in Azure."""
        return await run_blocking(lambda _call: self._cloud.leftovers(asked.spec.azure))

    @activity.defn(name=CLOUD_REMOVE_LEFTOVERS)
    async def remove_leftovers(self, asked: LeftoverInput) -> list[Leftover]:
        """Remove exactly what is named, after seeing its tag again."""
        return await run_blocking(
            lambda call: self._cloud.remove_leftovers(asked.spec.azure, asked.leftovers, call)
        )
