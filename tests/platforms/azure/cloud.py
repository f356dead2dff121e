"""An emulated Azure in a process of its own, and the platform pointed at it as at the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import GrantAccessData

from lab import chaos
from lab.azure import seed
from models.machine import CloudMachine, Snapshot
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform, AzureSettings
from platforms.base import Call
from tests.waiting import wait_until

SUBSCRIPTION = "0f5c1a2e-1111-4222-8333-944455556666"
GROUP = "Failback-RG"
MIB = 2**20
DISK_BYTES = 8 * MIB
RUN = "run-1"
TAGS = {"failback-run": RUN, "failback-machine": "web"}

QUICK: dict[str, Any] = {
    "latency": {"snapshots": 0.05, "disks": 0.05, "access": 0.02, "vm": 0.2, "vm_update": 0.05},
    "guest_shutdown_timeout": 1.5,
    "snapshots_per_window": 1000,
}


class Memory:
    """Continuation tokens as a run keeps them; optionally in a file that outlives the process."""

    def __init__(self, file: Path | None = None) -> None:
        self.tokens: dict[str, str] = {}
        self.ever: list[str] = []
        self._file = file
        if file is not None and file.exists():
            self.tokens = json.loads(file.read_text())

    def remember(self, operation: str, token: str | None) -> None:
        self.tokens.pop(operation, None)
        if token is not None:
            self.tokens[operation] = token
            self.ever.append(operation)
        if self._file is not None:
            temporary = self._file.with_suffix(".new")
            temporary.write_text(json.dumps(self.tokens))
            temporary.replace(self._file)

    def call(self, stop: threading.Event | None = None) -> Call:
        return Call(stop=stop or threading.Event(), recall=self.tokens.get, remember=self.remember)


class Cloud:
    """One emulator process."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        (directory / "azure.json").write_text(json.dumps({**QUICK, **settings}))
        self._process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def start(self) -> None:
        (self.directory / "azure.ready").unlink(missing_ok=True)
        log = (self.directory / "azure.log").open("ab")
        command = [sys.executable, "-m", "lab.azure", "--dir", str(self.directory)]
        self._process = subprocess.Popen(command, stderr=log)
        wait_until(lambda: (self.directory / "azure.ready").exists(), 30)
        self.ready = json.loads((self.directory / "azure.ready").read_text())
        os.environ.update(self.ready["environment"])

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def edit_state(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change what the API has no way to change; the emulator must not run."""
        file = self.directory / "azure.state.json"
        state = json.loads(file.read_text())
        edit(state)
        file.write_text(json.dumps(state))

    def settings(self, **changes: Any) -> AzureSettings:
        options: dict[str, Any] = {
            "base_url": self.ready["arm_url"],
            "credential_scopes": (self.ready["credential_scope"],),
            "ca_file": self.ready["ca_file"],
            "polling_interval_seconds": 0.05,
            "confirm_seconds": 5.0,
            "backoff_seconds": 5.0,
        }
        return AzureSettings(**{**options, **changes})

    def platform(self, **changes: Any) -> AzurePlatform:
        return AzurePlatform(self.settings(**changes))

    def seed(self, name: str, *, group: str = GROUP, **options: Any) -> AzureMachineRef:
        """A machine with an OS disk and one data disk, named after it."""
        options.setdefault(
            "disks",
            [
                {"os": True, "name": f"{name}-os", "size_bytes": DISK_BYTES},
                {"lun": 0, "name": f"{name}-data", "size_bytes": DISK_BYTES},
            ],
        )
        options.setdefault("guest", False)
        options.setdefault("nics", [{"name": f"{name}-nic", "address": "10.0.0.4"}])
        seed.create_vm(self.directory, SUBSCRIPTION, group, name, **options)
        return AzureMachineRef(subscription_id=SUBSCRIPTION, resource_group=group, vm=name)

    def lab(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Ask the emulator's local port."""
        request = urllib.request.Request(f"{self.ready['lab_url']}/{path}", body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            content: bytes = answer.read()
            return content

    def write(self, disk: str, offset: int, content: bytes) -> None:
        self.lab("PUT", f"disks/{disk}?offset={offset}", content)

    def clear(self, disk: str, offset: int, length: int) -> None:
        self.lab("DELETE", f"disks/{disk}?offset={offset}&length={length}")

    def client(self) -> ComputeManagementClient:
        """The SDK's own client, for what the platform never does."""
        return ComputeManagementClient(
            DefaultAzureCredential(),
            SUBSCRIPTION,
            base_url=self.ready["arm_url"],
            credential_scopes=[self.ready["credential_scope"]],
            connection_verify=self.ready["ca_file"],
            polling_interval=0.05,
        )

    def lock(self, scope: str, level: str) -> None:
        """Put a management lock on a resource or group."""
        url = f"{scope}/providers/Microsoft.Authorization/locks/test?api-version=2020-05-01"
        body = {"properties": {"level": level}}
        request = HttpRequest("PUT", self.ready["arm_url"] + url, json=body)
        assert self.client().send_request(request).status_code in (200, 201)

    def grant_disk(self, disk: str) -> None:
        """Export a disk, as somebody else might."""
        access = GrantAccessData(access="Read", duration_in_seconds=3600)
        self.client().disks.begin_grant_access(GROUP, disk, access).result()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.lab("GET", "state"))
        return state

    def names(self, kind: str) -> set[str]:
        """Names of all resources of a type such as `Microsoft.Compute/snapshots`."""
        resources = self.state()["resources"].values()
        return {r["name"] for r in resources if r["type"].lower() == kind.lower()}

    def count(self, operation: str, resource: str = "*") -> Callable[[], int]:
        """Count the requests of an operation from now on."""
        rule = {"operation": operation, "resource": resource, "action": "delay", "seconds": 0}
        rule_id = chaos.add(self.directory, rule)
        return lambda: chaos.hits(self.directory, rule_id)

    @contextmanager
    def misbehaving(self, **rule: Any) -> Iterator[str]:
        rule_id = chaos.add(self.directory, rule)
        try:
            yield rule_id
        finally:
            chaos.remove(self.directory, rule_id)


def machine_of(platform: AzurePlatform, source: AzureMachineRef) -> CloudMachine:
    """The machine as preflight finds it."""
    machine = platform.inspect(source, Call()).machine
    assert machine is not None
    return machine


def take(
    platform: AzurePlatform, source: AzureMachineRef, machine: CloudMachine, suffix: str
) -> dict[str, Snapshot]:
    """Snapshots of all disks by disk id."""
    names = {disk.disk_id: f"{disk.name}-{suffix}" for disk in machine.disks}
    taken = platform.take_snapshots(source, machine, names, TAGS, Call())
    return {snapshot.disk_id: snapshot for snapshot in taken}
