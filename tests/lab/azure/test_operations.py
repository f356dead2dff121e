"""Long-running operations on the wire and over kills; the limits; misbehaviour on request."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.rest import HttpRequest
from azure.mgmt.compute import ComputeManagementClient

from lab import chaos
from tests.lab.azure.conftest import GROUP, SUBSCRIPTION, Cloud, code_of, copy_of, power_state
from tests.waiting import wait_until


def send(cloud: Cloud, method: str, path: str, body: Any = None) -> Any:
    """One request as it is, without the SDK's polling."""
    prefix = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
    url = path if path.startswith("https:") else f"{prefix}/{path}"
    params = {} if path.startswith("https:") else {"api-version": "2026-03-02"}
    return cloud.compute.send_request(HttpRequest(method, url, params=params, json=body))


def test_asking_twice_for_a_snapshot_takes_one(cloud: Cloud) -> None:
    cloud.machine("twice")
    first = cloud.snapshot("twice-1", "twice-data")
    again = cloud.snapshot("twice-1", "twice-data")
    assert again.unique_id == first.unique_id
    with pytest.raises(ResourceExistsError) as caught:
        cloud.snapshot("twice-1", "twice-os")
    assert code_of(caught.value) == "PropertyChangeNotAllowed"


def test_five_signatures_per_family(cloud: Cloud) -> None:
    cloud.machine("five")
    for n in range(6):
        cloud.snapshot(f"five-{n}", "five-data")
    for n in range(5):
        cloud.grant(f"five-{n}")
    with pytest.raises(ResourceExistsError) as caught:
        cloud.grant("five-5")
    assert code_of(caught.value) == "OperationNotAllowed"
    cloud.grant("five-0")
    cloud.compute.snapshots.begin_revoke_access(GROUP, "five-0").result()
    cloud.grant("five-5")


def test_sixty_days_at_most(cloud: Cloud) -> None:
    cloud.machine("days")
    cloud.snapshot("days-1", "days-data")
    cloud.grant("days-1", 5_184_000)
    with pytest.raises(HttpResponseError) as caught:
        cloud.grant("days-1", 5_184_001)
    assert caught.value.status_code == 400


def test_the_wire_shapes_are_those_of_the_service(own: Cloud) -> None:
    own.machine("wire")
    put = send(own, "PUT", "snapshots/wire-1", copy_of(own, "wire-data"))
    assert put.status_code == 202
    assert put.json()["properties"]["provisioningState"] == "Updating"
    assert "Retry-After" not in put.headers
    assert "x-ms-ratelimit-remaining-subscription-writes" in put.headers
    poll, location = put.headers["Azure-AsyncOperation"], put.headers["Location"]
    assert "/locations/westeurope/DiskOperations/" in poll
    assert location == poll + "&monitor=true"
    assert send(own, "GET", poll).json()["status"] == "InProgress"
    assert send(own, "GET", location).status_code == 202
    wait_until(lambda: send(own, "GET", poll).json()["status"] == "Succeeded", 5)
    done = send(own, "GET", poll).json()
    assert {"startTime", "endTime", "status", "properties", "name"} == set(done)
    assert done["properties"]["output"]["name"] == "wire-1"

    request = {"access": "Read", "durationInSeconds": 600}
    granted = send(own, "POST", "snapshots/wire-1/beginGetAccess", request)
    assert (granted.status_code, granted.content) == (202, b"")
    wait_until(lambda: send(own, "GET", granted.headers["Location"]).status_code == 200, 5)
    result = send(own, "GET", granted.headers["Location"]).json()
    assert "/abcd?snapshot=" in result["accessSAS"]
    assert "sr=bs" in result["accessSAS"]
    assert "se=" not in result["accessSAS"].split("?")[1].replace("&sr", "")
    snapshot = own.compute.snapshots.get(GROUP, "wire-1")
    assert snapshot.incremental
    assert snapshot.incremental_snapshot_family_id
    assert snapshot.completion_percent == 100
    assert snapshot.time_created is not None
    disk = own.compute.disks.get(GROUP, "wire-data")
    assert snapshot.creation_data is not None
    assert snapshot.creation_data.source_unique_id == disk.unique_id
    assert send(own, "POST", "virtualMachines/wire/powerOff").status_code == 202
    assert send(own, "DELETE", "snapshots/wire-none").status_code == 204


def test_seven_snapshots_in_five_minutes(own: Cloud) -> None:
    own.machine("seven")
    body = copy_of(own, "seven-data")
    for n in range(7):
        assert send(own, "PUT", f"snapshots/seven-{n}", body).status_code == 202
    refused = send_once(own, "PUT", "snapshots/seven-7", body)
    assert refused.status_code == 429
    assert 200 < int(refused.headers["Retry-After"]) <= 300
    assert refused.json()["error"]["details"][0]["code"] == "TooManyRequests"
    assert send(own, "PUT", "snapshots/seven-os", copy_of(own, "seven-os")).status_code == 202


def send_once(cloud: Cloud, method: str, path: str, body: Any = None) -> Any:
    client = ComputeManagementClient(
        cloud.credential,
        SUBSCRIPTION,
        base_url=cloud.ready["arm_url"],
        connection_verify=cloud.ready["ca_file"],
        retry_total=0,
    )
    prefix = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
    params = {"api-version": "2026-03-02"}
    return client.send_request(HttpRequest(method, f"{prefix}/{path}", params=params, json=body))


def test_a_throttled_call_says_when_to_come_back(cloud: Cloud) -> None:
    cloud.machine("busy")
    rule = cloud.chaos(operation="disks.get", action="throttle", retry_after=1, times=1)
    started = time.monotonic()
    assert cloud.compute.disks.get(GROUP, "busy-data").name == "busy-data"
    assert time.monotonic() - started >= 1
    assert chaos.hits(cloud.directory, rule) == 1


def test_an_operation_fails_late_and_leaves_nothing(cloud: Cloud) -> None:
    cloud.machine("late")
    cloud.chaos(operation="snapshots.createOrUpdate", action="lro_fail", code="Broken", times=1)
    with pytest.raises(HttpResponseError) as caught:
        cloud.snapshot("late-1", "late-data")
    assert (caught.value.status_code, code_of(caught.value)) == (200, "Broken")
    assert "late-1" not in {s.name for s in cloud.compute.snapshots.list()}
    cloud.compute.virtual_machines.begin_deallocate(GROUP, "late").result()
    rule = {"operation": "virtualMachines.start", "code": "AllocationFailed"}
    cloud.chaos(action="lro_fail", **rule)
    with pytest.raises(HttpResponseError) as caught:
        cloud.compute.virtual_machines.begin_start(GROUP, "late").result()
    assert code_of(caught.value) == "AllocationFailed"
    assert power_state(cloud, "late") == "deallocated"


def test_a_guest_that_refuses_leaves_the_machine_running(cloud: Cloud) -> None:
    cloud.machine("stubborn")
    machines = cloud.compute.virtual_machines
    cloud.chaos(
        operation="virtualMachines.powerOff", action="refuse_shutdown", resource="*/stubborn/*"
    )
    refusing = machines.begin_power_off(GROUP, "stubborn")
    with pytest.raises(HttpResponseError) as caught:
        refusing.result()
    assert code_of(caught.value) == "VMGuestShutdownTimedOut"
    assert power_state(cloud, "stubborn") == "running"
    refusing = machines.begin_power_off(GROUP, "stubborn")
    machines.begin_deallocate(GROUP, "stubborn").result()
    with pytest.raises(HttpResponseError) as caught:
        refusing.result()
    assert code_of(caught.value) == "OperationPreempted"
    assert power_state(cloud, "stubborn") == "deallocated"
    machines.begin_start(GROUP, "stubborn").result()
    machines.begin_power_off(GROUP, "stubborn", skip_shutdown=True).result()
    assert power_state(cloud, "stubborn") == "stopped"


def test_a_dropped_answer_may_have_been_carried_out(cloud: Cloud) -> None:
    cloud.machine("drop")
    for when, done in (("before", False), ("after", True)):
        cloud.chaos(operation="snapshots.createOrUpdate", action="drop", when=when, times=1)
        with pytest.raises((ServiceRequestError, ServiceResponseError)):
            send_once(cloud, "PUT", f"snapshots/drop-{when}", copy_of(cloud, "drop-data"))
        names = {s.name for s in cloud.compute.snapshots.list_by_resource_group(GROUP)}
        assert (f"drop-{when}" in names) is done


def test_data_can_be_throttled_revoked_shortened_and_lied_about(cloud: Cloud) -> None:
    cloud.machine("lies")
    cloud.snapshot("lies-1", "lies-data")
    for offset in (0, 65536, 131072):
        cloud.write("lies-data", offset, b"x" * 4096)
    cloud.snapshot("lies-2", "lies-data")
    base = cloud.grant("lies-1")
    blob = cloud.blob(cloud.grant("lies-2"))

    cloud.chaos(emulator="azure-data", operation="GET pagelist-diff", action="lie_unchanged",
                offset=65536, length=4096, times=1)  # fmt: skip
    lied, _ = blob.get_page_range_diff_for_managed_disk(base)
    honest, _ = blob.get_page_range_diff_for_managed_disk(base)
    assert [r["start"] for r in honest if r not in lied] == [65536]

    cloud.chaos(operation="GET blob", action="throttle", times=1)
    with pytest.raises(HttpResponseError) as caught:
        blob._client.blob.download(snapshot=blob.snapshot, range="bytes=0-511")
    assert (caught.value.status_code, caught.value.reason) == (503, "Service Unavailable")

    cloud.chaos(operation="GET blob", action="short_read", bytes=100, times=1)
    short = b"".join(blob._client.blob.download(snapshot=blob.snapshot, range="bytes=0-511"))
    assert short == b"x" * 100

    cloud.chaos(operation="GET blob", action="revoke_sas", times=1)
    with pytest.raises(HttpResponseError) as caught:
        blob._client.blob.download(snapshot=blob.snapshot, range="bytes=0-511")
    assert caught.value.status_code == 403
    assert (
        json.loads(cloud.lab("GET", "leftovers"))["grants"].count(
            cloud.compute.snapshots.get(GROUP, "lies-2").id
        )
        == 0
    )


def test_settings_change_while_it_runs(own: Cloud) -> None:
    own.machine("paced")
    own.write("paced-data", 0, b"x" * 4 * 1024**2)
    own.snapshot("paced-1", "paced-data")
    blob = own.blob(own.grant("paced-1"))
    own.lab("PUT", "settings", b'{"export_mib_per_second": 8}')
    started = time.monotonic()
    content = b"".join(blob._client.blob.download(snapshot=blob.snapshot, range="bytes=0-4194303"))
    assert time.monotonic() - started > 0.3
    assert content == b"x" * 4 * 1024**2
    own.lab("PUT", "settings", b'{"export_mib_per_second": 0, "latency": {"snapshots": 0.01}}')
    with pytest.raises(urllib.error.HTTPError):
        own.lab("PUT", "settings", b'{"arm_port": 1}')


def test_a_hanging_request_goes_on_when_the_rule_ends(cloud: Cloud) -> None:
    cloud.machine("hang")
    rule = cloud.chaos(operation="disks.get", action="hang", times=1)

    def end_the_rule_once_it_struck() -> None:
        wait_until(lambda: chaos.hits(cloud.directory, rule) == 1, 5)
        chaos.remove(cloud.directory, rule)

    remover = threading.Thread(target=end_the_rule_once_it_struck)
    remover.start()
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        send_once(cloud, "GET", "disks/hang-data")
    remover.join()


def test_the_identity_can_fail_and_keeps_to_its_secret(cloud: Cloud) -> None:
    environment = cloud.ready["environment"]
    url = f"{environment['IDENTITY_ENDPOINT']}?api-version=2019-08-01&resource=x"
    secret = {"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]}
    cloud.chaos(operation="identity.token", action="fail", status=500, times=1)
    for headers, status in ((secret, 500), ({"X-IDENTITY-HEADER": "guess"}, 401)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers))
        assert caught.value.code == status
    answer = json.load(urllib.request.urlopen(urllib.request.Request(url, headers=secret)))
    assert answer["token_type"] == "Bearer"
    assert int(answer["expires_on"]) > time.time()
