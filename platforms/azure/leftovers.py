"""What runs left behind in Azure: snapshots that bear a run's tag, and grants still active on them.
Nothing without such a tag is ever listed or removed."""

from __future__ import annotations

from azure.mgmt.compute import models as azure_models

from models.errors import AzureNotFound
from models.machine import Leftover
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.errors import guarded
from platforms.azure.grants import Grants, has_grant
from platforms.azure.names import machine_of, run_of
from platforms.azure.snapshots import Snapshots, snapshot_group
from platforms.base import Call

SNAPSHOT = "snapshot"
GRANT = "disk-grant"


class Leftovers:
    """Finds and removes. `Leftover.place` is the snapshot's resource id."""

    def __init__(self, clients: Clients, snapshots: Snapshots, grants: Grants) -> None:
        self._clients = clients
        self._snapshots = snapshots
        self._grants = grants

    def find(self, source: AzureMachineRef) -> list[Leftover]:
        """Grants first, so that removing in this order works."""
        found = [s for s in self._in_group(source) if run_of(s.tags) and s.id]
        grants = [_leftover(GRANT, s) for s in found if has_grant(s.disk_state)]
        return grants + [_leftover(SNAPSHOT, s) for s in found]

    def remove(self, leftovers: list[Leftover], call: Call) -> list[Leftover]:
        """Remove exactly these; one whose tag names another run by now is left alone."""
        removed: list[Leftover] = []
        for leftover in sorted(leftovers, key=lambda item: item.kind != GRANT):
            if leftover.kind not in (GRANT, SNAPSHOT):
                continue
            found = self._snapshots.find(leftover.place)
            if found is not None:
                if not leftover.run_id or run_of(found.tags) != leftover.run_id:
                    continue
                self._remove(leftover, found, call)
            removed.append(leftover)
        return removed

    def _remove(self, leftover: Leftover, found: azure_models.Snapshot, call: Call) -> None:
        if has_grant(found.disk_state):
            self._grants.revoke(leftover.place, call)
        if leftover.kind == SNAPSHOT:
            self._snapshots.delete(leftover.place, call)

    def _in_group(self, source: AzureMachineRef) -> list[azure_models.Snapshot]:
        group = snapshot_group(source)
        snapshots = self._clients.compute(source.subscription_id).snapshots
        try:
            return guarded(
                f"Listing the snapshots in {group!r}",
                lambda: [*snapshots.list_by_resource_group(group)],
            )
        except AzureNotFound:
            return []


def _leftover(kind: str, found: azure_models.Snapshot) -> Leftover:
    return Leftover(
        kind=kind,
        name=str(found.name),
        place=str(found.id),
        run_id=run_of(found.tags),
        machine=machine_of(found.tags),
    )
