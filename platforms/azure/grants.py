"""Read grants on snapshots. The URL of a grant is a secret: it is returned, never kept, logged or
put into an error, and the operation that makes it leaves no continuation token."""

from __future__ import annotations

from functools import partial

from azure.mgmt.compute.models import AccessUri, GrantAccessData

from models.errors import AzureNotFound, AzureUnavailable
from models.machine import Snapshot
from platforms.azure.clients import Clients
from platforms.azure.names import parse_resource_id
from platforms.azure.operations import Running, finish, run_operation, without_memory
from platforms.base import Call

_GRANTED = ("activesas", "activesasfrozen")


class Grants:
    """Makes and ends grants. Granting twice renews the grant that is there."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def grant(self, snapshot: Snapshot, call: Call) -> str:
        """The secret URL to read a snapshot from.

        Raises:
            AzureNotFound: The snapshot is gone.
            AzureConflict: The snapshot's family has five grants already, or its policy forbids it.
        """
        where = parse_resource_id(snapshot.resource_id)
        settings = self._clients.settings
        data = GrantAccessData(access="Read", duration_in_seconds=settings.sas_duration_seconds)
        begin = partial(
            self._clients.compute(where.subscription_id).snapshots.begin_grant_access,
            where.resource_group,
            where.name,
            data,
        )
        doing = f"Granting read access to snapshot {snapshot.name!r}"
        access: AccessUri = run_operation("grant", doing, begin, without_memory(call), settings)
        url = access.access_sas if access is not None else None
        if not url:
            raise AzureUnavailable(f"{doing}: Azure answered without an address to read from.")
        return url

    def begin_revoke(self, resource_id: str, call: Call) -> Running[None]:
        """Begin to end the grant on a snapshot; fine if there is none.

        Raises:
            AzureNotFound: The snapshot is gone.
        """
        where = parse_resource_id(resource_id)
        begin = partial(
            self._clients.compute(where.subscription_id).snapshots.begin_revoke_access,
            where.resource_group,
            where.name,
        )
        doing = f"Revoking access to snapshot {where.name!r}"
        return Running(f"revoke/{where.name}", doing, begin, call, self._clients.settings)

    def revoke(self, resource_id: str, call: Call) -> None:
        """End the grant on a snapshot; fine if there is none or the snapshot is gone."""
        try:
            finish(self.begin_revoke(resource_id, call))
        except AzureNotFound:
            pass


def has_grant(disk_state: object) -> bool:
    """Whether a disk's or snapshot's state says that a grant is active."""
    return str(getattr(disk_state, "value", disk_state) or "").lower() in _GRANTED
