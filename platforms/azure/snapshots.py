"""Incremental snapshots of a machine's disks: made once by name, released by tag.

A snapshot belongs to the run whose tag it bears. One of the same name without that tag is never
used and never deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

from azure.mgmt.compute import models as azure_models

from models.errors import (
    AzureConflict,
    AzureFailed,
    AzureNotFound,
    AzureThrottled,
    AzureUnavailable,
    FailbackError,
    Stopped,
)
from models.machine import CloudDisk, CloudMachine, Snapshot
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.errors import guarded, throttled
from platforms.azure.grants import Grants, has_grant
from platforms.azure.names import RUN_TAG, parse_resource_id, run_of
from platforms.azure.operations import Running, finish
from platforms.azure.waiting import wait_for
from platforms.base import Call

_log = logging.getLogger(__name__)

# Azure makes at most 7 incremental snapshots of a disk in 5 minutes; without a time in its answer,
# this is how long the oldest of them may need to leave the window.
_SNAPSHOT_RATE_SECONDS = 60.0
# Reads at the same time; a machine has up to 64 disks.
_PARALLEL = 8

Item = TypeVar("Item")


class _Prepared(NamedTuple):
    """What there is of a snapshot, and what it is made from; no template where it is finished."""

    disk: CloudDisk
    name: str
    existing: azure_models.Snapshot | None
    template: azure_models.Snapshot | None


class Snapshots:
    """Takes and releases snapshots."""

    def __init__(self, clients: Clients, grants: Grants) -> None:
        self._clients = clients
        self._settings = clients.settings
        self._grants = grants

    def take(
        self,
        source: AzureMachineRef,
        machine: CloudMachine,
        names: dict[str, str],
        tags: dict[str, str],
        call: Call,
    ) -> list[Snapshot]:
        """One snapshot per disk in `names`, as close together in time as Azure allows: all are
        begun before the first is waited for.

        Raises:
            AzureConflict: A foreign snapshot has the name, or the disk was replaced.
            AzureThrottled: Too many snapshots of a disk in too short a time.
        """
        disks = [disk for disk in machine.disks if disk.disk_id in names]
        begun = [
            self._begin(source, prepared, call)
            for prepared in _in_parallel(
                lambda disk: self._prepare(source, machine, disk, names[disk.disk_id], tags), disks
            )
        ]
        for running in begun:
            if running is not None:
                finish(running)
        return _in_parallel(
            lambda disk: self._ready(source, disk, names[disk.disk_id], tags, call), disks
        )

    def release(
        self, revoke: list[Snapshot], delete: list[Snapshot], run_id: str, call: Call
    ) -> None:
        """Revoke, then delete, as far as the snapshots bear this run's tag. One failure does not
        keep the others from being released; failures are raised at the end."""
        failures: list[FailbackError] = []
        found = {
            snapshot.resource_id: self._ours(snapshot, run_id, failures)
            for snapshot in [*revoke, *delete]
        }
        # Azure deletes nothing that somebody may be reading.
        readable = [s for s in delete if (f := found[s.resource_id]) and has_grant(f.disk_state)]
        ending = {s.resource_id: s for s in [*revoke, *readable] if found[s.resource_id]}
        _all_at_once([partial(self._grants.begin_revoke, id_, call) for id_ in ending], failures)
        going = {s.resource_id: s for s in delete if found[s.resource_id]}
        _all_at_once([partial(self._deletion, id_, call) for id_ in going], failures)
        if failures:
            raise _summary(failures)

    def find(self, resource_id: str) -> azure_models.Snapshot | None:
        """The snapshot, or `None` if it does not exist."""
        where = parse_resource_id(resource_id)
        return self._get(where.subscription_id, where.resource_group, where.name)

    def delete(self, resource_id: str, call: Call) -> None:
        """Delete a snapshot whose tag the caller has seen; fine if it is gone."""
        finish(self._deletion(resource_id, call))

    def _prepare(
        self,
        source: AzureMachineRef,
        machine: CloudMachine,
        disk: CloudDisk,
        name: str,
        tags: dict[str, str],
    ) -> _Prepared:
        """Look whether the snapshot exists, and what it would be made from."""
        existing = self._get(source.subscription_id, snapshot_group(source), name)
        if existing is not None:
            _refuse_foreign(existing, name, tags)
            if _state(existing) == "succeeded":
                return _Prepared(disk, name, existing, None)
        return _Prepared(disk, name, existing, self._template(machine, disk, tags))

    def _begin(
        self, source: AzureMachineRef, prepared: _Prepared, call: Call
    ) -> Running[azure_models.Snapshot] | None:
        name, disk, template = prepared.name, prepared.disk, prepared.template
        group = snapshot_group(source)
        operation = f"take-snapshot/{name}"
        if template is None:
            call.remember(operation, None)
            return None
        being_made = prepared.existing is not None and _state(prepared.existing) != "failed"
        if being_made and call.recall(operation) is None:
            return None  # by an attempt that left no token; waited for by reading
        compute = self._clients.compute(source.subscription_id)
        begin = partial(compute.snapshots.begin_create_or_update, group, name, template)
        doing = f"Taking snapshot {name!r} of disk {disk.name!r}"
        try:
            return Running(operation, doing, begin, call, self._settings)
        except AzureThrottled as failure:
            named = vars(failure).get("retry_after_seconds")
        raise throttled(
            f"{doing}: Azure makes at most 7 incremental snapshots of a disk in 5 minutes, or is "
            "throttling.",
            named or _SNAPSHOT_RATE_SECONDS,
        )

    def _template(
        self, machine: CloudMachine, disk: CloudDisk, tags: dict[str, str]
    ) -> azure_models.Snapshot:
        found = self._disk(disk)
        if (found.unique_id or "") != disk.unique_id:
            raise AzureConflict(
                f"Disk {disk.name!r} was replaced since the run began: it has another unique id.",
                hint="Abort this run and start anew.",
            )
        # A private disk stays private: its snapshot is read through the same disk access.
        private = str(found.network_access_policy or "").lower().endswith("allowprivate")
        return azure_models.Snapshot(
            location=found.location or machine.location,
            tags=dict(tags),
            properties=azure_models.SnapshotProperties(
                incremental=True,
                creation_data=azure_models.CreationData(
                    create_option="Copy", source_resource_id=disk.resource_id
                ),
                network_access_policy="AllowPrivate" if private else "AllowAll",
                disk_access_id=found.disk_access_id if private else None,
            ),
        )

    def _ready(
        self,
        source: AzureMachineRef,
        disk: CloudDisk,
        name: str,
        tags: dict[str, str],
        call: Call,
    ) -> Snapshot:
        """The finished snapshot, seen to be of this very disk."""
        latest: list[azure_models.Snapshot] = []

        def complete() -> bool:
            found = self._get(source.subscription_id, snapshot_group(source), name)
            if found is None:
                raise AzureNotFound(f"Snapshot {name!r} vanished after it was taken.")
            latest[:] = [found]
            percent = found.completion_percent
            done = percent is None or percent >= 100
            return _state(found) == "failed" or (_state(found) == "succeeded" and done)

        in_time = wait_for(
            complete,
            call,
            seconds=self._settings.operation_seconds,
            interval_seconds=self._settings.polling_interval_seconds,
            waiting_for=f"snapshot {name!r} to be complete",
        )
        found = latest[0]
        if not in_time:
            raise AzureUnavailable(
                f"Snapshot {name!r} is not complete after {self._settings.operation_seconds:.0f} s "
                f"({found.completion_percent} %)."
            )
        if _state(found) == "failed":
            raise AzureFailed(
                f"Azure could not make snapshot {name!r}.", hint="Retry makes it anew."
            )
        _refuse_foreign(found, name, tags)
        return _described(found, disk, name)

    def _disk(self, disk: CloudDisk) -> azure_models.Disk:
        where = parse_resource_id(disk.resource_id)
        compute = self._clients.compute(where.subscription_id)
        return guarded(
            f"Reading disk {disk.name!r}",
            lambda: compute.disks.get(where.resource_group, where.name),
        )

    def _get(self, subscription: str, group: str, name: str) -> azure_models.Snapshot | None:
        compute = self._clients.compute(subscription)
        try:
            return guarded(f"Reading snapshot {name!r}", lambda: compute.snapshots.get(group, name))
        except AzureNotFound:
            return None

    def _ours(
        self, snapshot: Snapshot, run_id: str, failures: list[FailbackError]
    ) -> azure_models.Snapshot | None:
        """The snapshot if it exists and bears the run's tag; a foreign one is a failure."""
        results: list[azure_models.Snapshot | None] = []
        _attempt(lambda: results.append(self.find(snapshot.resource_id)), failures)
        found = results[0] if results else None
        if found is None or (run_id and run_of(found.tags) == run_id):
            return found
        failures.append(
            AzureConflict(
                f"Snapshot {snapshot.name!r} does not bear this run's tag {RUN_TAG!r}; it stays.",
                hint="Delete it by hand if it is yours.",
            )
        )
        return None

    def _deletion(self, resource_id: str, call: Call) -> Running[None]:
        where = parse_resource_id(resource_id)
        compute = self._clients.compute(where.subscription_id)
        begin = partial(compute.snapshots.begin_delete, where.resource_group, where.name)
        doing = f"Deleting snapshot {where.name!r}"
        return Running(f"delete-snapshot/{where.name}", doing, begin, call, self._settings)


def snapshot_group(source: AzureMachineRef) -> str:
    """The resource group of the run's snapshots."""
    return source.snapshot_resource_group or source.resource_group


def _described(found: azure_models.Snapshot, disk: CloudDisk, name: str) -> Snapshot:
    taken_of = found.creation_data.source_unique_id if found.creation_data else None
    if taken_of != disk.unique_id:
        raise AzureConflict(
            f"Snapshot {name!r} is not of disk {disk.name!r} as the run found it: the disk was "
            "replaced under the same name.",
            hint="Abort this run and start anew.",
        )
    if not found.id or not found.disk_size_bytes:
        raise AzureUnavailable(f"Azure described snapshot {name!r} without its id or size.")
    return Snapshot(
        disk_id=disk.disk_id,
        name=name,
        resource_id=found.id,
        disk_unique_id=disk.unique_id,
        size_bytes=found.disk_size_bytes,
    )


def _refuse_foreign(found: azure_models.Snapshot, name: str, tags: dict[str, str]) -> None:
    if not tags.get(RUN_TAG) or run_of(found.tags) != tags[RUN_TAG]:
        raise AzureConflict(
            f"A snapshot named {name!r} exists that is not this run's.",
            hint="Rename or delete it, or let the run that made it end.",
        )


def _state(found: azure_models.Snapshot) -> str:
    return str(found.provisioning_state or "").lower()


def _in_parallel(function: Callable[[CloudDisk], Item], disks: list[CloudDisk]) -> list[Item]:
    """Ask for all disks at once: this happens while the machine stands still."""
    with ThreadPoolExecutor(max_workers=max(1, min(_PARALLEL, len(disks)))) as pool:
        return list(pool.map(function, disks))


def _all_at_once(begins: list[Callable[[], Running[None]]], failures: list[FailbackError]) -> None:
    """Begin every operation before the first is waited for."""
    running: list[Running[None]] = []
    for begin in begins:
        _attempt(partial(_append, running, begin), failures)
    for operation in running:
        _attempt(partial(finish, operation), failures)


def _append(running: list[Running[None]], begin: Callable[[], Running[None]]) -> None:
    running.append(begin())


def _attempt(action: Callable[[], object], failures: list[FailbackError]) -> None:
    try:
        action()
    except AzureNotFound:
        pass
    except Stopped:
        raise
    except FailbackError as failure:
        failures.append(failure)


def _summary(failures: list[FailbackError]) -> FailbackError:
    """The failure to raise for all: one that a retry may cure comes first, because the retry shows
    the others again."""
    chosen = next((failure for failure in failures if failure.retryable), failures[0])
    for failure in failures:
        if failure is not chosen:
            _log.warning("while releasing snapshots: %s", failure)
            chosen.message = f"{chosen.message} Also: {failure.message}"
    return chosen
