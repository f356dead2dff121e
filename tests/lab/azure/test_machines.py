"""The life of a machine: power, instance view, updates, deletion, what else a preflight reads."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest

from tests.lab.azure.conftest import DISK_SIZE, GROUP, SUBSCRIPTION, Cloud, code_of, power_state
from tests.lab.images import make_disks
from tests.waiting import wait_until


def test_power_actions_pass_through_their_states(cloud: Cloud) -> None:
    cloud.machine("power")
    machines = cloud.compute.virtual_machines
    assert power_state(cloud, "power") == "running"
    stopping = machines.begin_power_off(GROUP, "power")
    assert power_state(cloud, "power") == "stopping"
    stopping.result()
    assert power_state(cloud, "power") == "stopped"
    assert cloud.compute.disks.get(GROUP, "power-data").disk_state == "Attached"
    deallocating = machines.begin_deallocate(GROUP, "power")
    assert power_state(cloud, "power") == "deallocating"
    deallocating.result()
    assert power_state(cloud, "power") == "deallocated"
    assert cloud.compute.disks.get(GROUP, "power-data").disk_state == "Reserved"
    starting = machines.begin_start(GROUP, "power")
    assert power_state(cloud, "power") == "starting"
    starting.result()
    expanded = machines.get(GROUP, "power", expand="instanceView")
    assert expanded.instance_view is not None
    assert expanded.instance_view.vm_agent is not None or expanded.instance_view.statuses


def test_ids_and_paths_ignore_case(cloud: Cloud) -> None:
    cloud.machine("Cased")
    machine = cloud.compute.virtual_machines.get(GROUP.lower(), "CASED")
    assert machine.name == "Cased"
    assert f"/resourceGroups/{GROUP}/" in str(machine.id)


def test_what_is_not_there_is_a_404_with_its_code(cloud: Cloud) -> None:
    cloud.machine("there")
    with pytest.raises(ResourceNotFoundError) as caught:
        cloud.compute.virtual_machines.get(GROUP, "nowhere")
    assert code_of(caught.value) == "ResourceNotFound"
    with pytest.raises(ResourceNotFoundError) as caught:
        cloud.compute.disks.get("no-such-group", "nothing")
    assert code_of(caught.value) == "ResourceGroupNotFound"


def test_lists_come_in_pages(cloud: Cloud) -> None:
    for n in range(4):
        cloud.machine(f"listed-{n}")
    names = {d.name for d in cloud.compute.disks.list_by_resource_group(GROUP)}
    assert {f"listed-{n}-{kind}" for n in range(4) for kind in ("os", "data")} <= names
    assert {f"listed-{n}" for n in range(4)} <= {
        m.name for m in cloud.compute.virtual_machines.list_all()
    }


def test_delete_takes_what_the_delete_options_say(cloud: Cloud) -> None:
    cloud.machine(
        "doomed",
        disks=[
            {"os": True, "name": "doomed-os", "size_bytes": DISK_SIZE, "delete_option": "Delete"},
            {"lun": 0, "name": "doomed-0", "size_bytes": DISK_SIZE, "delete_option": "Delete"},
            {"lun": 1, "name": "doomed-1", "size_bytes": DISK_SIZE, "delete_option": "Delete"},
        ],
        nics=[{"name": "doomed-nic", "address": "10.0.0.9", "delete_option": "Delete"}],
    )
    machines = cloud.compute.virtual_machines
    profile = machines.get(GROUP, "doomed").storage_profile
    assert profile is not None
    kept = [d.as_dict() for d in profile.data_disks or []]
    kept[0]["deleteOption"] = "Detach"
    change: Any = {"properties": {"storageProfile": {"dataDisks": kept}}}
    assert machines.begin_update(GROUP, "doomed", change).result().name == "doomed"
    machines.begin_delete(GROUP, "doomed").result()
    remaining = {d.name for d in cloud.compute.disks.list_by_resource_group(GROUP)}
    assert "doomed-0" in remaining
    assert not {"doomed-os", "doomed-1"} & remaining
    assert cloud.compute.disks.get(GROUP, "doomed-0").disk_state == "Unattached"
    with pytest.raises(ResourceNotFoundError):
        cloud.network.network_interfaces.get(GROUP, "doomed-nic")
    cloud.compute.disks.begin_delete(GROUP, "doomed-0").result()


def test_an_attached_disk_or_a_granted_snapshot_cannot_be_deleted(cloud: Cloud) -> None:
    cloud.machine("held")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.compute.disks.begin_delete(GROUP, "held-data")
    assert code_of(caught.value) == "OperationNotAllowed"
    cloud.snapshot("held-1", "held-data")
    cloud.grant("held-1")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.compute.snapshots.begin_delete(GROUP, "held-1")
    assert code_of(caught.value) == "OperationNotAllowed"
    cloud.compute.snapshots.begin_revoke_access(GROUP, "held-1").result()
    cloud.compute.snapshots.begin_delete(GROUP, "held-1").result()
    cloud.compute.snapshots.begin_delete(GROUP, "held-1").result()


def test_a_disk_is_copied_from_a_snapshot(cloud: Cloud) -> None:
    cloud.machine("copied")
    cloud.write("copied-data", 4096, b"kept")
    snapshot = cloud.snapshot("copied-1", "copied-data")
    cloud.write("copied-data", 4096, b"lost")
    body: Any = {
        "location": "westeurope",
        "properties": {"creationData": {"createOption": "Copy", "sourceResourceId": snapshot.id}},
    }
    disk = cloud.compute.disks.begin_create_or_update(GROUP, "copied-2", body).result()
    assert disk.disk_size_bytes == DISK_SIZE
    assert disk.unique_id != snapshot.creation_data.source_unique_id
    assert cloud.lab("GET", "disks/copied-2?offset=4096&length=4") == b"kept"
    assert "copied-2" in cloud.lab("GET", "leftovers").decode()


def test_a_machine_is_found_with_its_network(cloud: Cloud) -> None:
    cloud.machine("netted", nics=[{"name": "netted-nic", "address": "10.0.3.7"}])
    nic = cloud.network.network_interfaces.get(GROUP, "netted-nic")
    [configuration] = nic.ip_configurations or []
    assert configuration.private_ip_address == "10.0.3.7"
    assert configuration.subnet is not None
    network = str(configuration.subnet.id).split("/")[8]
    subnet = cloud.network.subnets.get(GROUP, network, "default")
    assert subnet.address_prefix == "10.0.0.0/16"
    sizes = {sku.name for sku in cloud.compute.resource_skus.list()}
    machine = cloud.compute.virtual_machines.get(GROUP, "netted")
    assert machine.hardware_profile is not None
    assert machine.hardware_profile.vm_size in sizes
    assert next(iter(cloud.compute.usage.list("westeurope"))).limit == 100


def test_an_etag_fences_updates(cloud: Cloud) -> None:
    cloud.machine("fenced")
    machines = cloud.compute.virtual_machines
    seen = machines.get(GROUP, "fenced").etag
    mine: Any = {"tags": {"owner": "me"}}
    fence: Any = {"etag": seen, "match_condition": MatchConditions.IfNotModified}
    assert machines.begin_update(GROUP, "fenced", mine, **fence).result().tags == {"owner": "me"}
    with pytest.raises(HttpResponseError) as caught:
        machines.begin_update(GROUP, "fenced", mine, **fence)
    assert caught.value.status_code == 412


def test_a_missing_permission_and_a_missing_token_are_refused(cloud: Cloud) -> None:
    cloud.machine("barred")
    cloud.snapshot("barred-1", "barred-data")
    barred = {"actions": ["*"], "notActions": ["Microsoft.Compute/snapshots/beginGetAccess/*"]}
    cloud.lab("PUT", "permissions", json.dumps(barred).encode())
    try:
        with pytest.raises(HttpResponseError) as caught:
            cloud.grant("barred-1")
        assert (caught.value.status_code, code_of(caught.value)) == (403, "AuthorizationFailed")
        assert cloud.compute.snapshots.get(GROUP, "barred-1").name == "barred-1"
    finally:
        cloud.lab("PUT", "permissions", b'{"actions": ["*"]}')


def test_no_token_no_answer(cloud: Cloud) -> None:
    trusted = ssl.create_default_context(cafile=cloud.ready["ca_file"])
    url = f"{cloud.ready['arm_url']}/subscriptions/{SUBSCRIPTION}?api-version=2022-12-01"
    for headers in ({}, {"Authorization": "Bearer lab.e30.forged"}):
        request = urllib.request.Request(url, headers=headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, context=trusted)
        assert caught.value.code == 401
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_lock_blocks_what_it_says(cloud: Cloud) -> None:
    machine = cloud.machine("locked")
    cloud.snapshot("locked-1", "locked-data")
    scope = machine.replace("virtualMachines/locked", "snapshots/locked-1")
    arm(cloud, "PUT", f"{scope}/providers/Microsoft.Authorization/locks/l", "CanNotDelete")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.compute.snapshots.begin_delete(GROUP, "locked-1")
    assert code_of(caught.value) == "ScopeLocked"
    cloud.grant("locked-1")
    arm(cloud, "PUT", f"{scope}/providers/Microsoft.Authorization/locks/l", "ReadOnly")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.compute.snapshots.begin_revoke_access(GROUP, "locked-1")
    assert code_of(caught.value) == "ScopeLocked"
    listed = arm(cloud, "GET", f"{scope}/providers/Microsoft.Authorization/locks")
    assert [lock["name"] for lock in listed["value"]] == ["l"]
    arm(cloud, "DELETE", f"{scope}/providers/Microsoft.Authorization/locks/l")
    granted = arm(cloud, "GET", f"{scope}/providers/Microsoft.Authorization/permissions")
    assert granted["value"][0]["actions"] == ["*"]


def arm(cloud: Cloud, method: str, path: str, level: str | None = None) -> Any:
    body = {"properties": {"level": level}} if level else None
    request = HttpRequest(method, path, params={"api-version": "2020-05-01"}, json=body)
    response = cloud.compute.send_request(request)
    response.raise_for_status()
    return response.json() if response.content else None


def test_a_guest_lives_while_its_machine_runs(cloud: Cloud, tmp_path: Path) -> None:
    images = make_disks(tmp_path)
    cloud.machine(
        "guest",
        disks=[
            {"os": True, "name": "guest-os", "image": images[0].path, "move": True},
            {"lun": 0, "name": "guest-0", "image": images[1].path},
        ],
        guest=True,
    )

    def guest() -> dict[str, Any]:
        said: dict[str, Any] = json.loads(cloud.lab("GET", "guests"))["guest"]
        return said

    wait_until(lambda: guest()["heartbeat"] == "OK" and guest()["sequence"] > 3, 10)
    cloud.compute.virtual_machines.begin_power_off(GROUP, "guest").result()
    assert guest()["heartbeat"] == "Off"
    acknowledged = cloud.directory / "guest" / "guest" / "ack-azure.jsonl"
    last = json.loads(acknowledged.read_text().splitlines()[-1])
    assert last["kind"] == "shutdown"

    cloud.compute.virtual_machines.begin_start(GROUP, "guest").result()
    wait_until(lambda: guest()["sequence"] > last["sequence"] + 1, 10)
    cloud.lab("POST", "guests/guest", b'{"refuse_shutdown": true}')
    cloud.compute.virtual_machines.begin_power_off(GROUP, "guest").result()
    assert power_state(cloud, "guest") == "stopped"
    last = json.loads(acknowledged.read_text().splitlines()[-1])
    assert last["kind"] != "shutdown"
