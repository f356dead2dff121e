"""Preflight checks of what surrounds the machine: permissions, management locks, and the snapshots
that are there already."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.mgmt.compute import models as azure_models

from models.errors import AzureDenied, FailbackError
from models.machine import CloudDisk, CloudMachine
from models.spec import AzureMachineRef
from platforms.azure.checklist import Checklist, Finding
from platforms.azure.clients import Clients
from platforms.azure.grants import has_grant
from platforms.azure.machine import MachineReader
from platforms.azure.names import machine_of, parse_resource_id, run_of
from platforms.azure.permissions import MACHINE_ACTIONS, SNAPSHOT_ACTIONS, missing_actions
from platforms.azure.snapshots import snapshot_group

_PERMISSIONS_VERSION = "2022-04-01"
_LOCKS_VERSION = "2020-05-01"
# Azure keeps at most 500 incremental snapshots of a disk; a run has up to three at a time.
_MOST_SNAPSHOTS = 500
_SNAPSHOTS_NEEDED = 3
_NEARLY_FULL = 450
# Azure makes at most 7 incremental snapshots of a disk in 5 minutes.
_MOST_RECENT = 7
_RECENT = timedelta(minutes=5)
# A snapshot this young is of a run that is at work, unless that run was just given up.
_AT_WORK = timedelta(minutes=15)
# Azure allows 5 grants on one disk's snapshots at a time; a run needs two.
_MOST_GRANTS = 5
_GRANTS_NEEDED = 2


class AccessChecks:
    """Makes these checks; the machine may be missing."""

    def __init__(
        self,
        clients: Clients,
        reader: MachineReader,
        source: AzureMachineRef,
        machine: CloudMachine | None,
    ) -> None:
        self._clients = clients
        self._reader = reader
        self._source = source
        self._machine = machine

    def add_to(self, checklist: Checklist) -> None:
        """Make every check."""
        checklist.run(
            "azure-permissions",
            "FB-CHK-AZURE-PERMISSIONS",
            "Assign the role in deploy/azure-role.json to the identity, on both resource groups.",
            self._permissions,
        )
        checklist.run(
            "azure-locks",
            "FB-CHK-AZURE-LOCKS",
            "Remove the lock for the time of the failback.",
            self._locks,
        )
        checklist.run(
            "azure-snapshot-group",
            "FB-CHK-AZURE-SNAPSHOT-GROUP",
            "Create the resource group that azure.snapshot_resource_group names, in the same "
            "subscription.",
            self._snapshot_group,
        )
        try:
            snapshots = self._all_snapshots()
            problem = ""
        except FailbackError as error:
            snapshots, problem = [], error.message
        checklist.run(
            "azure-snapshot-room",
            "FB-CHK-AZURE-SNAPSHOT-ROOM",
            "Delete old incremental snapshots of the disk, revoke their grants, or wait a few "
            "minutes.",
            lambda: self._room(snapshots, problem),
        )
        checklist.run(
            "azure-snapshot-earlier",
            "FB-CHK-AZURE-SNAPSHOT-EARLIER",
            "If no other run of this machine is under way, `failback doctor` removes them.",
            lambda: self._earlier(snapshots, problem),
        )
        checklist.run(
            "azure-other-run",
            "FB-CHK-AZURE-OTHER-RUN",
            "Let that run end, or abort it. If it is dead, `failback doctor` removes what it left.",
            lambda: self._other_run(snapshots, problem),
        )

    def _permissions(self) -> Finding:
        source = self._source
        wanted = {source.resource_group.lower(): list(MACHINE_ACTIONS)}
        wanted.setdefault(snapshot_group(source).lower(), []).extend(SNAPSHOT_ACTIONS)
        for group, actions in self._elsewhere():
            known = wanted.setdefault(group, [])
            known += [action for action in actions if action not in known]
        finding = Finding()
        for group, actions in wanted.items():
            try:
                permissions = self._list(
                    f"Reading the identity's permissions in {group!r}",
                    f"{self._group_path(group)}/providers/Microsoft.Authorization/permissions",
                    _PERMISSIONS_VERSION,
                )
            except FailbackError as error:
                finding.doubts.append(f"could not be looked up: {error.message}")
                continue
            missing = missing_actions(permissions, actions)
            finding.seen.append(f"all {len(actions)} actions allowed in {group!r}")
            if missing:
                finding.problems.append(f"not allowed in {group!r}: {', '.join(missing)}")
        return finding

    def _elsewhere(self) -> Iterator[tuple[str, list[str]]]:
        """What is needed in the groups of disks and interfaces that are not the machine's."""
        ids = [(disk.resource_id, "/disks/") for disk in self._disks()]
        if self._machine is not None:
            ids += [(a.resource_id, "/networkInterfaces/") for a in self._machine.adapters]
        for resource_id, kind in ids:
            group = parse_resource_id(resource_id).resource_group.lower()
            if group != self._source.resource_group.lower():
                yield group, [action for action in MACHINE_ACTIONS if kind in action]

    def _locks(self) -> Finding:
        source = self._source
        finding = Finding(seen=["none"])
        groups = {source.resource_group.lower(): source.resource_group}
        groups.setdefault(snapshot_group(source).lower(), snapshot_group(source))
        locks: dict[str, dict[str, Any]] = {}
        for group in groups.values():
            try:
                for lock in self._list(
                    f"Reading the locks on {group!r}",
                    f"{self._group_path(group)}/providers/Microsoft.Authorization/locks",
                    _LOCKS_VERSION,
                ):
                    locks[str(lock.get("id")).lower()] = lock
            except FailbackError as error:
                finding.doubts.append(f"could not be looked up: {error.message}")
        for lock in locks.values():
            self._judge(lock, finding)
        return finding

    def _judge(self, lock: dict[str, Any], finding: Finding) -> None:
        scope = str(lock.get("id", "")).lower()
        scope = scope.split("/providers/microsoft.authorization/locks/")[0].rstrip("/")
        level = str(lock.get("properties", {}).get("level", ""))
        snapshots = self._group_path(snapshot_group(self._source)).lower()
        touched = [item for item in self._resources() if _covers(scope, item)]
        words = f"lock {lock.get('name')!r} ({level}) on {scope or 'everything'}"
        if level.lower() == "readonly" and (touched or _covers(scope, snapshots)):
            finding.problems.append(f"{words} forbids power operations and snapshots")
        elif level.lower() == "cannotdelete" and _covers(scope, snapshots):
            finding.problems.append(f"{words} forbids deleting the run's own snapshots")
        elif level.lower() == "cannotdelete" and touched:
            finding.doubts.append(f"{words} will forbid the deletion at commit")

    def _resources(self) -> list[str]:
        """What the run touches, in lower case: what is locked there locks the run."""
        group = self._group_path(self._source.resource_group).lower()
        ids = [group, f"{group}/providers/microsoft.compute/virtualmachines/{self._source.vm}"]
        if self._machine is not None:
            ids += [disk.resource_id for disk in self._machine.disks]
            ids += [adapter.resource_id for adapter in self._machine.adapters]
        return [item.lower() for item in ids]

    def _snapshot_group(self) -> Finding:
        group = snapshot_group(self._source)
        snapshots = self._clients.compute(self._source.subscription_id).snapshots
        self._reader.read(
            f"Listing the snapshots in {group!r}",
            lambda: next(iter(snapshots.list_by_resource_group(group)), None),
        )
        return Finding(seen=[f"snapshots are made in {group!r}"])

    def _all_snapshots(self) -> list[azure_models.Snapshot]:
        """Of the whole subscription, because Azure counts them so; of the run's group where that
        is not allowed."""
        snapshots = self._clients.compute(self._source.subscription_id).snapshots
        group = snapshot_group(self._source)
        try:
            return self._reader.read(
                "Listing the snapshots of the subscription", lambda: list(snapshots.list())
            )
        except AzureDenied:
            pass
        return self._reader.read(
            f"Listing the snapshots in {group!r}",
            lambda: list(snapshots.list_by_resource_group(group)),
        )

    def _room(self, snapshots: list[azure_models.Snapshot], problem: str) -> Finding:
        finding = Finding()
        if problem:
            finding.doubts.append(f"could not be counted: {problem}")
        for disk in self._disks():
            own = [s for s in snapshots if s.incremental and _source(s) == disk.unique_id]
            granted = sum(1 for s in own if has_grant(s.disk_state))
            recent = sum(1 for s in own if _is_younger(s, _RECENT))
            finding.seen.append(f"{disk.disk_id} has {len(own)} snapshots, {granted} granted")
            if len(own) > _MOST_SNAPSHOTS - _SNAPSHOTS_NEEDED:
                finding.problems.append(
                    f"disk {disk.name!r} has {len(own)} of {_MOST_SNAPSHOTS} incremental snapshots"
                )
            elif len(own) > _NEARLY_FULL:
                finding.doubts.append(f"disk {disk.name!r} has {len(own)} incremental snapshots")
            if granted > _MOST_GRANTS - _GRANTS_NEEDED:
                finding.problems.append(
                    f"{granted} snapshots of disk {disk.name!r} have grants; Azure allows "
                    f"{_MOST_GRANTS}, a run needs {_GRANTS_NEEDED}"
                )
            if recent >= _MOST_RECENT:
                finding.doubts.append(
                    f"disk {disk.name!r} had {recent} snapshots taken in the last 5 minutes; the "
                    "first of the run will have to wait"
                )
        return finding

    def _earlier(self, snapshots: list[azure_models.Snapshot], problem: str) -> Finding:
        finding = Finding(seen=["none"])
        if problem:
            finding.doubts.append(f"could not be listed: {problem}")
        for snapshot in self._of_runs(snapshots):
            finding.doubts.append(f"{_title(snapshot)} is still there")
        return finding

    def _other_run(self, snapshots: list[azure_models.Snapshot], problem: str) -> Finding:
        """Whether a run works on these disks now, under whatever name: its snapshots are being
        read, or have just been made. A run that makes this check has none yet."""
        finding = Finding(seen=["none"])
        if problem:
            finding.doubts.append(f"could not be looked for: {problem}")
        for snapshot in self._of_runs(snapshots):
            if has_grant(snapshot.disk_state):
                finding.problems.append(f"{_title(snapshot)} is being read")
            elif _is_younger(snapshot, _AT_WORK):
                minutes = _AT_WORK.total_seconds() / 60
                finding.problems.append(
                    f"{_title(snapshot)} was made in the last {minutes:.0f} min"
                )
        return finding

    def _of_runs(self, snapshots: list[azure_models.Snapshot]) -> list[azure_models.Snapshot]:
        """Those that a run made of this machine's disks as they are now."""
        own = {disk.unique_id for disk in self._disks()}
        return [s for s in snapshots if run_of(s.tags) and _source(s) in own]

    def _disks(self) -> list[CloudDisk]:
        disks = self._machine.disks if self._machine is not None else []
        return [disk for disk in disks if disk.unique_id]

    def _list(self, doing: str, path: str, api_version: str) -> list[dict[str, Any]]:
        subscription = self._source.subscription_id
        return self._reader.read(
            doing, lambda: self._clients.list_json(subscription, path, api_version)
        )

    def _group_path(self, group: str) -> str:
        return f"/subscriptions/{self._source.subscription_id}/resourceGroups/{group}"


def _covers(scope: str, resource_id: str) -> bool:
    return resource_id == scope or resource_id.startswith(f"{scope}/")


def _source(snapshot: azure_models.Snapshot) -> str | None:
    data = snapshot.creation_data
    return data.source_unique_id if data is not None else None


def _title(snapshot: azure_models.Snapshot) -> str:
    run, machine = run_of(snapshot.tags), machine_of(snapshot.tags)
    return f"snapshot {snapshot.name!r} of run {run!r} of machine {machine!r}"


def _is_younger(snapshot: azure_models.Snapshot, age: timedelta) -> bool:
    made: datetime | None = snapshot.time_created
    return made is not None and datetime.now(UTC) - made < age
