"""A real emulator process per module, and the real SDKs pointed at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.storage.blob import BlobClient

from lab import chaos
from lab.azure import seed
from tests.waiting import wait_until

SUBSCRIPTION = "0f5c1a2e-1111-4222-8333-944455556666"
GROUP = "Failback-RG"
LOCATION = "westeurope"
DISK_SIZE = 16 * 1024 * 1024  # bytes; small, so that tests are quick

QUICK: dict[str, Any] = {
    "latency": {"snapshots": 0.05, "disks": 0.05, "access": 0.05, "vm": 0.2, "vm_update": 0.05},
    "guest_shutdown_timeout": 1.5,
    "snapshots_per_window": 1000,
    "list_page_size": 3,
}


class Cloud:
    """One emulator process and the clients a failback uses."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        (directory / "azure.json").write_text(json.dumps({**QUICK, **settings}))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.credential = DefaultAzureCredential()
        options: dict[str, Any] = {
            "base_url": self.ready["arm_url"],
            "connection_verify": self.ready["ca_file"],
            "credential_scopes": [self.ready["credential_scope"]],
            "polling_interval": 0.05,
        }
        self.compute = ComputeManagementClient(self.credential, SUBSCRIPTION, **options)
        self.network = NetworkManagementClient(self.credential, SUBSCRIPTION, **options)

    def start(self) -> None:
        (self.directory / "azure.ready").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.azure", "--dir", str(self.directory)]
        )
        wait_until(lambda: (self.directory / "azure.ready").exists(), 20)
        self.ready = json.loads((self.directory / "azure.ready").read_text())
        os.environ.update(self.ready["environment"])

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(10) == 0

    def machine(self, name: str, **options: Any) -> str:
        """Seed a machine with an OS disk and one data disk, named after it."""
        options.setdefault(
            "disks",
            [
                {"os": True, "name": f"{name}-os", "size_bytes": DISK_SIZE},
                {"lun": 0, "name": f"{name}-data", "size_bytes": DISK_SIZE},
            ],
        )
        options.setdefault("guest", False)
        return seed.create_vm(self.directory, SUBSCRIPTION, GROUP, name, **options)

    def lab(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Ask the emulator's local port."""
        request = urllib.request.Request(f"{self.ready['lab_url']}/{path}", body, method=method)
        with urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
            return content

    def write(self, disk: str, offset: int, content: bytes) -> None:
        self.lab("PUT", f"disks/{disk}?offset={offset}", content)

    def clear(self, disk: str, offset: int, length: int) -> None:
        self.lab("DELETE", f"disks/{disk}?offset={offset}&length={length}")

    def snapshot(self, name: str, disk: str, **properties: Any) -> Any:
        """Take an incremental snapshot and wait for it."""
        source = self.compute.disks.get(GROUP, disk)
        body: Any = {
            "location": LOCATION,
            "properties": {
                "incremental": True,
                "creationData": {"createOption": "Copy", "sourceResourceId": source.id},
                **properties,
            },
        }
        return self.compute.snapshots.begin_create_or_update(GROUP, name, body).result()

    def grant(self, snapshot: str, seconds: int = 3600) -> str:
        """Grant read access; returns the signed URL."""
        request: Any = {"access": "Read", "durationInSeconds": seconds}
        poller = self.compute.snapshots.begin_grant_access(GROUP, snapshot, request)
        url = poller.result().access_sas
        assert url is not None
        return str(url)

    def blob(self, url: str) -> BlobClient:
        """The storage SDK's client for a signed URL, without its patience for retries."""
        return BlobClient.from_blob_url(
            url,
            connection_verify=self.ready["ca_file"],
            api_version="2023-11-03",
            retry_total=0,
        )

    def chaos(self, **rule: Any) -> str:
        return chaos.add(self.directory, rule)


def copy_of(cloud: Cloud, disk: str) -> Any:
    source = cloud.compute.disks.get(GROUP, disk)
    return {
        "location": source.location,
        "properties": {
            "incremental": True,
            "creationData": {"createOption": "Copy", "sourceResourceId": source.id},
        },
    }


def power_state(cloud: Cloud, name: str) -> str:
    statuses = cloud.compute.virtual_machines.instance_view(GROUP, name).statuses or []
    [code] = [str(s.code) for s in statuses if str(s.code).startswith("PowerState/")]
    return code.removeprefix("PowerState/")


def code_of(error: HttpResponseError) -> str:
    assert error.error is not None
    return str(error.error.code)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator shared by the tests of a module; each test uses machines of its own."""
    cloud = Cloud(tmp_path_factory.mktemp("azure"))
    yield cloud
    cloud.stop()


@pytest.fixture(autouse=True)
def _no_chaos_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        chaos.clear(request.getfixturevalue("cloud").directory)


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator for one test, with the service's own snapshot limit and slow operations."""
    slow = {"snapshots": 1.0, "disks": 0.05, "access": 0.05, "vm": 1.0, "vm_update": 0.05}
    cloud = Cloud(
        tmp_path_factory.mktemp("azure"),
        snapshots_per_window=7,
        snapshot_window_seconds=300.0,
        latency=slow,
    )
    yield cloud
    cloud.stop()
