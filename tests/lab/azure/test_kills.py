"""The emulator killed at any moment: operations, guests and signed URLs go on, nothing leaks."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ResourceNotFoundError

from lab.guest import verify_acknowledged
from tests.lab.azure.conftest import GROUP, Cloud, copy_of, power_state
from tests.lab.images import FileDisk, make_disks
from tests.waiting import wait_until

KILLS = 5  # per seed


def test_operations_outlive_a_kill(own: Cloud) -> None:
    own.machine("killed")
    own.write("killed-data", 0, b"before")
    snapshots = own.compute.snapshots
    poller = snapshots.begin_create_or_update(GROUP, "killed-1", copy_of(own, "killed-data"))
    stopping = own.compute.virtual_machines.begin_deallocate(GROUP, "killed")
    tokens = poller.continuation_token(), stopping.continuation_token()
    port = own.ready["arm_url"]
    own.kill()
    own.start()
    assert own.ready["arm_url"] == port
    nothing: Any = None
    resumed = snapshots.begin_create_or_update(
        GROUP, "killed-1", nothing, continuation_token=tokens[0]
    )
    assert resumed.result().name == "killed-1"
    own.compute.virtual_machines.begin_deallocate(
        GROUP, "killed", continuation_token=tokens[1]
    ).result()
    assert power_state(own, "killed") == "deallocated"
    url = own.grant("killed-1")
    own.kill()
    own.start()
    assert own.blob(url).download_blob(0, 6).readall() == b"before"


def test_the_guest_goes_on_after_a_kill(own: Cloud, tmp_path: Path) -> None:
    images = make_disks(tmp_path)
    disks = [
        {"os": True, "name": "alive-os", "image": images[0].path},
        {"lun": 0, "name": "alive-0", "image": images[1].path},
    ]
    own.kill()
    own.machine("alive", disks=disks, guest=True)
    acknowledged = own.directory / "guest" / "alive" / "ack-azure.jsonl"
    own.start()
    for _ in range(3):
        written = len(acknowledged.read_text().splitlines()) if acknowledged.exists() else 0
        wait_until(lambda n=written: sequence(own, "alive") > n + 5, 10)  # type: ignore[misc]
        own.kill()
        own.start()
    own.compute.virtual_machines.begin_deallocate(GROUP, "alive").result()
    state = json.loads(own.lab("GET", "state"))
    paths = [
        own.directory / "azure-disks" / resource["lab"]["disk"] / "live.raw"
        for resource in state["resources"].values()
        if resource["type"] == "Microsoft.Compute/disks"
    ]
    verdict = verify_acknowledged({n: FileDisk(p) for n, p in enumerate(paths)}, [acknowledged])
    assert verdict.whole
    assert verdict.checked > 10


def sequence(cloud: Cloud, machine: str) -> int:
    return int(json.loads(cloud.lab("GET", "guests"))[machine].get("sequence", 0))


def discard(cloud: Cloud, snapshot: str) -> None:
    try:
        cloud.compute.snapshots.begin_revoke_access(GROUP, snapshot).result()
    except ResourceNotFoundError:
        return  # an earlier attempt got that far
    cloud.compute.snapshots.begin_delete(GROUP, snapshot).result()


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_instants_leave_nothing_behind(cloud: Cloud, seed: int) -> None:
    """A client that retries by name gets through, and its clean-up leaves no bytes behind."""
    chance = random.Random(seed)
    name = f"storm{seed}"
    cloud.machine(name)
    deadline = time.monotonic() + 60

    def insist(call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except AzureError:
                assert time.monotonic() < deadline, f"seed {seed}"

    def storm() -> None:
        for _ in range(KILLS):
            threading.Event().wait(0.05 + chance.random() * 0.5)
            cloud.kill()
            cloud.start()

    killer = threading.Thread(target=storm)
    killer.start()
    for n in range(3):
        insist(partial(cloud.snapshot, f"{name}-{n}", f"{name}-data"))
        insist(partial(cloud.grant, f"{name}-{n}"))
    for n in range(3):
        insist(partial(discard, cloud, f"{name}-{n}"))
    killer.join()
    left = json.loads(cloud.lab("GET", "leftovers"))
    assert not [s for s in left["snapshots"] + left["grants"] if name in s], f"seed {seed}"
    assert json.loads(cloud.lab("GET", f"disks/{name}-data"))["snapshots"] == []
