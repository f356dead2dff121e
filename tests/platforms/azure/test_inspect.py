"""Preflight: every check fails with its own code, touches nothing, and does not stop the next."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from models.machine import CheckResult, CloudReport, Verdict
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform, AzureSettings
from platforms.azure.permissions import MACHINE_ACTIONS, SNAPSHOT_ACTIONS
from platforms.base import Call
from tests.platforms.azure.cloud import (
    DISK_BYTES,
    GROUP,
    RUN,
    SUBSCRIPTION,
    Cloud,
    machine_of,
    take,
)

Edit = Callable[[dict[str, Any]], None]


def _disk(path: str, value: Any) -> Edit:
    """Change a field of the OS disk; `path` as in `properties.maxShares`."""
    return _edit("microsoft.compute/disks", "-os", path, value)


def _machine(path: str, value: Any) -> Edit:
    return _edit("microsoft.compute/virtualmachines", "", path, value)


def _edit(kind: str, suffix: str, path: str, value: Any) -> Edit:
    def edit(resources: dict[str, Any]) -> None:
        for resource in resources.values():
            if resource["type"].lower() == kind and resource["name"].endswith(suffix):
                target = resource
                *parents, last = path.split(".")
                for parent in parents:
                    target = target.setdefault(parent, {})
                target[last] = value

    return edit


FAILING: dict[str, tuple[str, Edit]] = {
    "denyall": ("azure-disk-network", _disk("body.properties.networkAccessPolicy", "DenyAll")),
    "public": ("azure-disk-public", _disk("body.properties.publicNetworkAccess", "Disabled")),
    "entra": (
        "azure-disk-auth",
        _disk("body.properties.dataAccessAuthMode", "AzureActiveDirectory"),
    ),
    "ade": (
        "azure-disk-encryption",
        _disk("body.properties.encryptionSettingsCollection", {"enabled": True}),
    ),
    "confidential": (
        "azure-disk-encryption",
        _disk(
            "body.properties.securityProfile",
            {"securityType": "ConfidentialVM_DiskEncryptedWithPlatformKey"},
        ),
    ),
    "ultra": ("azure-disk-sectors", _disk("body.sku", {"name": "UltraSSD_LRS"})),
    "fourk": ("azure-disk-sectors", _disk("body.properties.creationData.logicalSectorSize", 4096)),
    "shared": ("azure-disk-shared", _disk("body.properties.maxShares", 2)),
    "odd": ("azure-disk-size", _disk("body.properties.diskSizeBytes", DISK_BYTES + 512)),
    "region": ("azure-region", _disk("body.location", "northeurope")),
    "nameless": ("azure-disks", _disk("body.properties.uniqueId", "")),
    "unmanaged": (
        "azure-disks",
        _machine("body.properties.storageProfile.osDisk.managedDisk", {}),
    ),
    "ephemeral": (
        "azure-disk-ephemeral",
        _machine("body.properties.storageProfile.osDisk.diffDiskSettings", {"option": "Local"}),
    ),
    "broken": ("azure-provisioning", _machine("lab.provisioning", "Failed")),
    "starting": ("azure-power", _machine("lab.power", "starting")),
}
WARNING: dict[str, tuple[str, Edit]] = {
    "private": ("azure-disk-network", _disk("body.properties.networkAccessPolicy", "AllowPrivate")),
    "spot": ("azure-capacity", _machine("body.properties.priority", "Spot")),
    "oddsize": ("azure-size", _machine("body.properties.hardwareProfile.vmSize", "Standard_Odd")),
    "nonic": (
        "azure-network-interfaces",
        _machine(
            "body.properties.networkProfile.networkInterfaces",
            [
                {
                    "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/"
                    "Microsoft.Network/networkInterfaces/absent"
                }
            ],
        ),
    ),
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator with one machine for each thing that can be wrong with one."""
    cloud = Cloud(tmp_path_factory.mktemp("azure"))
    edits = {**FAILING, **WARNING}
    cloud.seed("healthy")
    for name in edits:
        cloud.seed(name)

    def change(state: dict[str, Any]) -> None:
        for name, (_, edit) in edits.items():
            own = (f"/{name}", f"/{name}-os")
            edit({key: r for key, r in state["resources"].items() if key.endswith(own)})

    cloud.edit_state(change)
    cloud.start()
    yield cloud
    cloud.stop()


def _ref(name: str, group: str = GROUP) -> AzureMachineRef:
    return AzureMachineRef(subscription_id=SUBSCRIPTION, resource_group=group, vm=name)


def _checks(report: CloudReport) -> dict[str, CheckResult]:
    return {check.name: check for check in report.checks}


def _not_passed(report: CloudReport) -> dict[str, Verdict]:
    return {c.name: c.verdict for c in report.checks if c.verdict is not Verdict.PASSED}


def test_a_healthy_machine_passes_and_is_described(cloud: Cloud, platform: AzurePlatform) -> None:
    before = cloud.state()
    report = platform.inspect(_ref("healthy"), Call())

    assert _not_passed(report) == {}
    assert len({check.name for check in report.checks}) == len(report.checks)
    assert cloud.state() == before
    machine = report.machine
    assert machine is not None
    assert machine.name == "healthy"
    assert machine.location == "westeurope"
    assert machine.vm_id
    assert machine.generation == 2
    assert machine.os_type == "Linux"
    assert (machine.processors, machine.memory_bytes) == (2, 8 * 2**30)
    assert machine.power_state == "running"
    assert [(d.disk_id, d.name, d.size_bytes) for d in machine.disks] == [
        ("os", "healthy-os", DISK_BYTES),
        ("lun0", "healthy-data", DISK_BYTES),
    ]
    assert all(disk.unique_id for disk in machine.disks)
    assert machine.adapters[0].addresses == ["10.0.0.4"]
    assert machine.adapters[0].subnet == "default"


@pytest.mark.parametrize("name", FAILING)
def test_what_is_wrong_with_a_machine_fails_its_own_check(
    platform: AzurePlatform, name: str
) -> None:
    check_name = FAILING[name][0]
    report = platform.inspect(_ref(name), Call())

    assert report.machine is not None
    check = _checks(report)[check_name]
    assert check.verdict is Verdict.FAILED
    assert check.code == f"FB-CHK-{check_name.upper()}"
    assert check.seen
    assert check.advice
    others = {other for other in _not_passed(report) if other != check_name}
    assert others <= {"azure-disk-network"}, report.checks


@pytest.mark.parametrize("name", WARNING)
def test_what_is_doubtful_warns(platform: AzurePlatform, name: str) -> None:
    report = platform.inspect(_ref(name), Call())
    check = _checks(report)[WARNING[name][0]]
    assert _not_passed(report) == {check.name: Verdict.WARNING}
    assert check.code == f"FB-CHK-{check.name.upper()}"
    assert report.machine is not None


def test_azure_that_does_not_answer_is_one_failed_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    settings = AzureSettings(base_url=f"https://127.0.0.1:{port}")
    report = AzurePlatform(settings, _Anyone()).inspect(_ref("healthy"), Call())
    assert report.machine is None
    assert [(c.name, c.code) for c in report.checks] == [("azure-reach", "FB-CHK-AZURE-REACH")]


class _Anyone:
    """A credential that Azure does not accept."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken("nobody", 2**31)


def test_a_rejected_identity_is_one_failed_check(cloud: Cloud) -> None:
    report = AzurePlatform(cloud.settings(), _Anyone()).inspect(_ref("healthy"), Call())
    assert [(c.name, c.verdict) for c in report.checks] == [("azure-reach", Verdict.FAILED)]
    assert report.machine is None


def test_a_certificate_nobody_vouches_for_is_a_failed_check(cloud: Cloud) -> None:
    platform = AzurePlatform(cloud.settings(ca_file=None), _Anyone())
    report = platform.inspect(_ref("healthy"), Call())
    assert [c.code for c in report.checks] == ["FB-CHK-AZURE-REACH"]
    assert "CERTIFICATE_VERIFY_FAILED" in report.checks[0].seen


@pytest.mark.parametrize(("vm", "group"), [("absent", GROUP), ("healthy", "absent-rg")])
def test_a_machine_that_is_not_there_fails_and_the_rest_is_checked(
    platform: AzurePlatform, vm: str, group: str
) -> None:
    report = platform.inspect(_ref(vm, group), Call())
    checks = _checks(report)
    assert report.machine is None
    assert checks["azure-reach"].verdict is Verdict.PASSED
    assert checks["azure-vm"].code == "FB-CHK-AZURE-VM"
    assert {"azure-permissions", "azure-locks", "azure-snapshot-group"} <= checks.keys()


def test_a_snapshot_group_that_is_not_there_fails(platform: AzurePlatform) -> None:
    source = _ref("healthy").model_copy(update={"snapshot_resource_group": "absent-rg"})
    check = _checks(platform.inspect(source, Call()))["azure-snapshot-group"]
    assert (check.verdict, check.code) == (Verdict.FAILED, "FB-CHK-AZURE-SNAPSHOT-GROUP")


@pytest.mark.parametrize("action", [MACHINE_ACTIONS[4], SNAPSHOT_ACTIONS[3], MACHINE_ACTIONS[0]])
def test_a_missing_permission_is_named(cloud: Cloud, platform: AzurePlatform, action: str) -> None:
    cloud.lab("PUT", "permissions", json.dumps({"actions": ["*"], "notActions": [action]}).encode())
    try:
        report = platform.inspect(_ref("healthy"), Call())
    finally:
        cloud.lab("PUT", "permissions", b'{"actions": ["*"]}')
    check = _checks(report)["azure-permissions"]
    assert (check.verdict, check.code) == (Verdict.FAILED, "FB-CHK-AZURE-PERMISSIONS")
    assert action in check.seen


def test_permissions_and_locks_that_cannot_be_looked_up_only_warn(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    with (
        cloud.misbehaving(
            operation="permissions.list", action="fail", status=403, code="AuthorizationFailed"
        ),
        cloud.misbehaving(
            operation="locks.list", action="fail", status=403, code="AuthorizationFailed"
        ),
    ):
        report = platform.inspect(_ref("healthy"), Call())
    assert _not_passed(report) == {
        "azure-permissions": Verdict.WARNING,
        "azure-locks": Verdict.WARNING,
    }


@pytest.mark.parametrize(
    ("level", "scope", "verdict"),
    [
        ("ReadOnly", "{group}", Verdict.FAILED),
        ("ReadOnly", "{group}/providers/Microsoft.Compute/disks/{vm}-os", Verdict.FAILED),
        ("CanNotDelete", "{group}", Verdict.FAILED),
        (
            "CanNotDelete",
            "{group}/providers/Microsoft.Compute/virtualMachines/{vm}",
            Verdict.WARNING,
        ),
        ("CanNotDelete", "{group}/providers/Microsoft.Compute/disks/other", Verdict.PASSED),
    ],
)
def test_locks_are_judged_by_what_they_forbid(
    cloud: Cloud, platform: AzurePlatform, level: str, scope: str, verdict: Verdict
) -> None:
    name = f"lock-{level}-{len(scope)}".lower()
    group = f"{name}-rg"
    cloud.seed(name, group=group)
    place = scope.format(group=f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}", vm=name)
    cloud.lock(place, level)

    report = platform.inspect(_ref(name, group), Call())

    check = _checks(report)["azure-locks"]
    assert check.verdict is verdict
    assert check.code == ("" if verdict is Verdict.PASSED else "FB-CHK-AZURE-LOCKS")


def test_a_disk_that_somebody_exports_fails(cloud: Cloud, platform: AzurePlatform) -> None:
    cloud.seed("exported", running=False)
    cloud.grant_disk("exported-os")
    check = _checks(platform.inspect(_ref("exported"), Call()))["azure-disk-grant"]
    assert (check.verdict, check.code) == (Verdict.FAILED, "FB-CHK-AZURE-DISK-GRANT")
    assert "exported-os" in check.seen


def test_earlier_snapshots_and_too_many_grants_are_found(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("earlier")
    machine = platform.inspect(source, Call()).machine
    assert machine is not None
    for number in range(4):
        snapshot = take(platform, source, machine, f"r{number}")["os"]
        with platform.open_snapshot(snapshot, None, Call()):
            pass
    checks = _checks(platform.inspect(source, Call()))
    assert checks["azure-snapshot-earlier"].verdict is Verdict.WARNING
    assert "earlier-os-r0" in checks["azure-snapshot-earlier"].seen
    assert checks["azure-snapshot-earlier"].code == "FB-CHK-AZURE-SNAPSHOT-EARLIER"
    assert checks["azure-snapshot-room"].verdict is Verdict.FAILED
    assert checks["azure-snapshot-room"].code == "FB-CHK-AZURE-SNAPSHOT-ROOM"


def test_a_run_at_work_on_the_same_disks_forbids_another(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("contended")
    machine = platform.inspect(source, Call()).machine
    assert machine is not None
    snapshots = take(platform, source, machine, "r1")
    check = _checks(platform.inspect(source, Call()))["azure-other-run"]
    assert (check.verdict, check.code) == (Verdict.FAILED, "FB-CHK-AZURE-OTHER-RUN")
    for words in ("contended-os-r1", "of run 'run-1'", "of machine 'web'", "made in the last 15"):
        assert words in check.seen
    # A fresh start right after an abort, which takes its snapshots along.
    platform.release_snapshots([], list(snapshots.values()), RUN, Call())
    assert _not_passed(platform.inspect(source, Call())) == {}


def test_an_old_snapshot_of_a_run_forbids_nothing_until_it_is_read(
    cloud: Cloud, tmp_path: Path
) -> None:
    old = Cloud(tmp_path)
    source = old.seed("aged")
    old.start()
    try:
        snapshot = take(old.platform(), source, machine_of(old.platform(), source), "r1")["os"]
        old.stop()
        old.edit_state(_an_hour_ago)
        old.start()
        platform = old.platform()
        report = platform.inspect(source, Call())
        assert _not_passed(report) == {"azure-snapshot-earlier": Verdict.WARNING}
        assert "of run 'run-1' of machine 'web'" in _checks(report)["azure-snapshot-earlier"].seen
        with platform.open_snapshot(snapshot, None, Call()):
            check = _checks(platform.inspect(source, Call()))["azure-other-run"]
        assert check.verdict is Verdict.FAILED
        assert check.seen.endswith("is being read")
    finally:
        old.stop()
        os.environ.update(cloud.ready["environment"])


def _an_hour_ago(state: dict[str, Any]) -> None:
    made = datetime.now(UTC) - timedelta(hours=1)
    change = _edit(
        "microsoft.compute/snapshots", "", "body.properties.timeCreated", made.isoformat()
    )
    change(state["resources"])


def test_a_stopped_machine_is_usable(cloud: Cloud, platform: AzurePlatform) -> None:
    cloud.seed("dormant", running=False)
    check = _checks(platform.inspect(_ref("dormant"), Call()))["azure-power"]
    assert (check.verdict, check.seen) == (Verdict.PASSED, "deallocated")
    assert check.advice


def test_delete_options_are_shown(cloud: Cloud, platform: AzurePlatform) -> None:
    disk = {"os": True, "name": "opt-os", "size_bytes": DISK_BYTES, "delete_option": "Delete"}
    cloud.seed("opt", disks=[disk])
    check = _checks(platform.inspect(_ref("opt"), Call()))["azure-delete-options"]
    assert (check.verdict, check.seen) == (Verdict.PASSED, "os Delete; opt-nic Detach")


def test_a_throttled_answer_is_asked_for_again(cloud: Cloud, platform: AzurePlatform) -> None:
    with cloud.misbehaving(operation="disks.get", action="throttle", retry_after=1, times=1):
        assert _not_passed(platform.inspect(_ref("healthy"), Call())) == {}
