"""Disks, snapshots and machines as resources: made, changed, and kept from what Azure forbids."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError

from tests.lab.azure.conftest import DISK_SIZE, GROUP, LOCATION, Cloud, code_of, power_state

GIB = 1024**3


def test_a_machine_is_made_again_from_its_disks(cloud: Cloud) -> None:
    cloud.machine("again")
    machines = cloud.compute.virtual_machines
    before = machines.get(GROUP, "again").as_dict()
    machines.begin_delete(GROUP, "again").result()
    assert cloud.compute.disks.get(GROUP, "again-os").disk_state == "Unattached"
    wanted: Any = {
        "location": LOCATION,
        "tags": {"made": "again"},
        "properties": {
            name: before["properties"][name]
            for name in ("hardwareProfile", "storageProfile", "networkProfile")
        },
    }
    after = machines.begin_create_or_update(GROUP, "again", wanted).result()
    assert after.provisioning_state == "Succeeded"
    assert after.vm_id != before["properties"]["vmId"]
    assert power_state(cloud, "again") == "running"
    assert cloud.compute.disks.get(GROUP, "again-data").managed_by == after.id


def test_a_data_disk_left_out_of_an_update_is_detached(cloud: Cloud) -> None:
    cloud.machine("shed")
    change: Any = {"properties": {"storageProfile": {"dataDisks": []}}}
    cloud.compute.virtual_machines.begin_update(GROUP, "shed", change).result()
    assert cloud.compute.disks.get(GROUP, "shed-data").managed_by is None


def test_an_update_does_not_disturb_a_power_action(cloud: Cloud) -> None:
    cloud.machine("calm")
    machines = cloud.compute.virtual_machines
    stopping = machines.begin_deallocate(GROUP, "calm")
    tags: Any = {"tags": {"job": "1"}}
    machines.begin_update(GROUP, "calm", tags).result()
    stopping.result()
    assert power_state(cloud, "calm") == "deallocated"
    assert machines.get(GROUP, "calm").tags == {"job": "1"}


def test_a_disk_grows_but_never_shrinks_nor_while_in_use(cloud: Cloud) -> None:
    cloud.machine("grown")
    disks = cloud.compute.disks
    larger: Any = {"properties": {"diskSizeGB": 2}}
    with pytest.raises(ResourceExistsError):
        disks.begin_update(GROUP, "grown-data", larger)
    cloud.snapshot("grown-1", "grown-data")
    cloud.compute.virtual_machines.begin_deallocate(GROUP, "grown").result()
    assert disks.begin_update(GROUP, "grown-data", larger).result().disk_size_bytes == 2 * GIB
    cloud.snapshot("grown-2", "grown-data")
    assert cloud.compute.snapshots.get(GROUP, "grown-1").disk_size_bytes == DISK_SIZE
    assert cloud.compute.snapshots.get(GROUP, "grown-2").disk_size_bytes == 2 * GIB
    smaller: Any = {"properties": {"diskSizeGB": 1}}
    with pytest.raises(HttpResponseError):
        disks.begin_update(GROUP, "grown-data", smaller)


def test_an_exported_disk_keeps_its_machine_from_starting(cloud: Cloud) -> None:
    cloud.machine("export")
    request: Any = {"access": "Read", "durationInSeconds": 600}
    with pytest.raises(ResourceExistsError):
        cloud.compute.disks.begin_grant_access(GROUP, "export-data", request)
    cloud.write("export-data", 0, b"disk")
    cloud.compute.virtual_machines.begin_deallocate(GROUP, "export").result()
    granted = cloud.compute.disks.begin_grant_access(GROUP, "export-data", request).result()
    assert "sr=b&" in str(granted.access_sas)
    assert cloud.blob(str(granted.access_sas)).download_blob(0, 4).readall() == b"disk"
    assert cloud.compute.disks.get(GROUP, "export-data").disk_state == "ActiveSAS"
    with pytest.raises(ResourceExistsError) as caught:
        cloud.compute.virtual_machines.begin_start(GROUP, "export")
    assert code_of(caught.value) == "OperationNotAllowed"
    cloud.compute.disks.begin_revoke_access(GROUP, "export-data").result()
    cloud.compute.virtual_machines.begin_start(GROUP, "export").result()


def test_a_network_policy_forbids_export(cloud: Cloud) -> None:
    cloud.machine("sealed")
    cloud.snapshot("sealed-1", "sealed-data", networkAccessPolicy="DenyAll")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.grant("sealed-1")
    assert code_of(caught.value) == "OperationNotAllowed"
    change: Any = {"tags": {"a": "b"}, "properties": {"networkAccessPolicy": "AllowAll"}}
    assert cloud.compute.snapshots.begin_update(GROUP, "sealed-1", change).result().tags == {
        "a": "b"
    }
    cloud.grant("sealed-1")


def test_snapshots_outlive_their_disk(cloud: Cloud) -> None:
    cloud.machine("gone")
    cloud.write("gone-data", 0, b"kept")
    cloud.snapshot("gone-1", "gone-data")
    cloud.write("gone-data", 0, b"lost")
    cloud.compute.virtual_machines.begin_delete(GROUP, "gone").result()
    cloud.compute.disks.begin_delete(GROUP, "gone-data").result()
    assert cloud.blob(cloud.grant("gone-1")).download_blob(0, 4).readall() == b"kept"


def test_the_local_port_says_what_it_does_not_understand(cloud: Cloud) -> None:
    cloud.machine("odd")
    for method, path, body in [
        ("POST", "guests/odd", b'{"wings": 2}'),
        ("GET", "disks/no-such-disk", None),
        ("PUT", "disks/odd-data?offset=999999999", b"x"),
        ("POST", "vms", b"{}"),
        ("GET", "nothing", None),
    ]:
        with pytest.raises(urllib.error.HTTPError) as caught:
            cloud.lab(method, path, body)
        assert 400 <= caught.value.code < 500
    with pytest.raises(urllib.error.HTTPError):
        cloud.machine("odd")
