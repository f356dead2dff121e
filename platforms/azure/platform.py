"""Azure as a `CloudPlatform`: one thin front before the files that do the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.credentials import TokenCredential

from models.machine import CloudMachine, CloudReport, Leftover, Snapshot
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.commit import Commit
from platforms.azure.grants import Grants
from platforms.azure.inspect import Inspection
from platforms.azure.leftovers import Leftovers
from platforms.azure.power import Power
from platforms.azure.reader import AzureSnapshotReader
from platforms.azure.settings import AzureSettings
from platforms.azure.snapshots import Snapshots
from platforms.base import Call, SnapshotReader


class AzurePlatform:
    """Azure, as `platforms.base.CloudPlatform` describes it. One instance serves all threads.

    Args:
        settings: Endpoints and pace.
        credential: Who we are; `DefaultAzureCredential` if none is given.
    """

    def __init__(self, settings: AzureSettings, credential: TokenCredential | None = None) -> None:
        self.settings = settings
        self._clients = Clients(settings, credential)
        self._grants = Grants(self._clients)
        self._snapshots = Snapshots(self._clients, self._grants)
        self._power = Power(self._clients)
        self._commit = Commit(self._clients)
        self._leftovers = Leftovers(self._clients, self._snapshots, self._grants)

    def inspect(self, source: AzureMachineRef, call: Call) -> CloudReport:
        """Every read-only check at once; never raises for what a check can report."""
        return Inspection(self._clients, source, call).report()

    def take_snapshots(
        self,
        source: AzureMachineRef,
        machine: CloudMachine,
        names: dict[str, str],
        tags: dict[str, str],
        call: Call,
    ) -> list[Snapshot]:
        """One incremental snapshot per disk id, by name; made once."""
        return self._snapshots.take(source, machine, names, tags, call)

    @contextmanager
    def open_snapshot(
        self, snapshot: Snapshot, base: Snapshot | None, call: Call
    ) -> Iterator[SnapshotReader]:
        """Grant read access; the grant outlives the context."""
        reader = AzureSnapshotReader(self._clients, self._grants, snapshot, base, call)
        reader.url(renew=False)
        try:
            yield reader
        finally:
            reader.close()

    def release_snapshots(
        self, revoke: list[Snapshot], delete: list[Snapshot], run_id: str, call: Call
    ) -> None:
        """Revoke grants, then delete snapshots that bear this run's tag; gone already is fine."""
        self._snapshots.release(revoke, delete, run_id, call)

    def power_state(self, source: AzureMachineRef) -> str:
        """As the instance view says; `gone` if the machine does not exist."""
        return self._power.state(source)

    def shut_down_guest(self, source: AzureMachineRef, timeout_seconds: float, call: Call) -> None:
        """Ask the guest to shut down; `GuestShutdownRefused` if it still runs after the time."""
        self._power.shut_down_guest(source, timeout_seconds, call)

    def power_off(self, source: AzureMachineRef, call: Call) -> None:
        """Power off without asking the guest."""
        self._power.power_off(source, call)

    def deallocate(self, source: AzureMachineRef, call: Call) -> None:
        """Deallocate, and see by the instance view that it is."""
        self._power.deallocate(source, call)

    def start(self, source: AzureMachineRef, call: Call) -> None:
        """Start, and see by the instance view that it runs."""
        self._power.start(source, call)

    def delete_machine(
        self, source: AzureMachineRef, machine: CloudMachine, call: Call
    ) -> list[str]:
        """Delete the machine and exactly its disks named in `machine`; returns what is gone."""
        return self._commit.delete_machine(source, machine, call)

    def leftovers(self, source: AzureMachineRef) -> list[Leftover]:
        """Snapshots that bear a run's tag, and grants active on them."""
        return self._leftovers.find(source)

    def remove_leftovers(
        self, source: AzureMachineRef, leftovers: list[Leftover], call: Call
    ) -> list[Leftover]:
        """Remove exactly these, after seeing each one's tag again; returns those removed."""
        return self._leftovers.remove(leftovers, call)
