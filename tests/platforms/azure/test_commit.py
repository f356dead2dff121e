"""Commit deletes the machine and the disks the run knew; nothing else goes along with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab import chaos
from models.errors import AzureConflict, AzureFailed, AzureLocked
from models.machine import CloudMachine
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform
from platforms.base import Call
from tests.platforms.azure.cloud import (
    DISK_BYTES,
    GROUP,
    SUBSCRIPTION,
    Cloud,
    Memory,
    machine_of,
)
from tests.waiting import wait_until

MACHINES = "Microsoft.Compute/virtualMachines"
DISKS = "Microsoft.Compute/disks"
INTERFACES = "Microsoft.Network/networkInterfaces"
UNSETTLED = ("starting", "stopping", "deallocating")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator with a machine in each state in between, named after it."""
    cloud = Cloud(tmp_path_factory.mktemp("azure"))
    for name in UNSETTLED:
        _seed(cloud, name)

    def change(state: dict[str, Any]) -> None:
        for resource in state["resources"].values():
            if resource["type"] == MACHINES and resource["name"] in UNSETTLED:
                resource["lab"]["power"] = resource["name"]

    cloud.edit_state(change)
    cloud.start()
    yield cloud
    cloud.stop()


def _seed(
    cloud: Cloud, name: str, option: str = "Delete", running: bool = False
) -> AzureMachineRef:
    disks = [
        {"os": True, "name": f"{name}-os", "size_bytes": DISK_BYTES, "delete_option": option},
        {"lun": 0, "name": f"{name}-data", "size_bytes": DISK_BYTES, "delete_option": option},
        {"lun": 3, "name": f"{name}-late", "size_bytes": DISK_BYTES, "delete_option": option},
    ]
    nics = [{"name": f"{name}-nic", "address": "10.0.0.4", "delete_option": option}]
    return cloud.seed(name, disks=disks, nics=nics, running=running)


def _without(machine: CloudMachine, disk_id: str) -> CloudMachine:
    """The machine as a run saw it before that disk was attached."""
    kept = [disk for disk in machine.disks if disk.disk_id != disk_id]
    return machine.model_copy(update={"disks": kept})


@pytest.mark.parametrize("option", ["Delete", "Detach"])
def test_the_machine_and_its_known_disks_go_and_the_rest_stays(
    cloud: Cloud, platform: AzurePlatform, option: str
) -> None:
    name = f"commit-{option.lower()}"
    source = _seed(cloud, name, option)
    machine = _without(machine_of(platform, source), "lun3")
    patches = cloud.count("virtualMachines.update")

    gone = platform.delete_machine(source, machine, Call())

    assert gone == [name, f"{name}-os", f"{name}-data"]
    assert name not in cloud.names(MACHINES)
    assert cloud.names(DISKS) & {f"{name}-os", f"{name}-data", f"{name}-late"} == {f"{name}-late"}
    assert f"{name}-nic" in cloud.names(INTERFACES)
    assert patches() == (1 if option == "Delete" else 0)


def test_it_may_be_asked_again(cloud: Cloud, platform: AzurePlatform) -> None:
    source = _seed(cloud, "twice")
    machine = machine_of(platform, source)
    first = platform.delete_machine(source, machine, Call())
    assert platform.delete_machine(source, machine, Call()) == first


def test_a_machine_that_was_started_again_is_not_deleted(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "again")
    machine = machine_of(platform, source)
    platform.start(source, Call())
    writes = cloud.count("virtualMachines.delete"), cloud.count("virtualMachines.update")

    with pytest.raises(AzureConflict, match="runs again since the cut-over") as refusal:
        platform.delete_machine(source, machine, Call())

    assert "stop it" in refusal.value.hint
    assert [count() for count in writes] == [0, 0]
    assert {"again-os", "again-data", "again-late"} <= cloud.names(DISKS)
    platform.power_off(source, Call())
    assert "again" in platform.delete_machine(source, machine, Call())
    assert "again" not in cloud.names(MACHINES)


@pytest.mark.parametrize("power", UNSETTLED)
def test_a_machine_that_is_not_known_to_rest_is_not_deleted(
    cloud: Cloud, platform: AzurePlatform, power: str
) -> None:
    source = AzureMachineRef(subscription_id=SUBSCRIPTION, resource_group=GROUP, vm=power)
    with pytest.raises(AzureConflict, match=f"is {power}"):
        platform.delete_machine(source, machine_of(platform, source), Call())
    assert power in cloud.names(MACHINES)


def test_a_machine_started_while_its_options_are_changed_is_not_deleted(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "meanwhile")
    machine = machine_of(platform, source)
    reads = chaos.add(
        cloud.directory, {"operation": "virtualMachines.get", "action": "delay", "seconds": 1}
    )
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(platform.delete_machine, source, machine, Call())
        wait_until(lambda: chaos.hits(cloud.directory, reads) == 2, 30)
        cloud.client().virtual_machines.begin_start(source.resource_group, source.vm, polling=False)
        with pytest.raises(AzureConflict, match="runs again"):
            commit.result(60)
    assert "meanwhile" in cloud.names(MACHINES)


@pytest.mark.parametrize("running", [True, False])
def test_a_machine_made_anew_under_the_name_stays_and_so_do_the_disks_it_has(
    cloud: Cloud, platform: AzurePlatform, running: bool
) -> None:
    name = "anew-running" if running else "anew-off"
    source = _seed(cloud, name, running=running)
    machine = machine_of(platform, source)
    earlier = machine.model_copy(update={"vm_id": "another"})
    writes = [
        cloud.count(operation)
        for operation in ("virtualMachines.delete", "virtualMachines.update", "disks.delete")
    ]

    assert platform.delete_machine(source, earlier, Call()) == [name]

    assert [count() for count in writes] == [0, 0, 0]
    assert name in cloud.names(MACHINES)
    assert {f"{name}-os", f"{name}-data", f"{name}-late"} <= cloud.names(DISKS)


def test_the_disks_of_a_machine_that_was_replaced_under_its_name_still_go(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "replaced", "Detach")
    machine = machine_of(platform, source)
    cloud.client().virtual_machines.begin_delete(source.resource_group, source.vm).result()
    new = {"os": True, "name": "replaced-new", "size_bytes": DISK_BYTES}
    cloud.seed("replaced", disks=[new], nics=[{"name": "replaced-new-nic", "address": "10.0.0.5"}])

    gone = platform.delete_machine(source, machine, Call())

    assert gone == ["replaced", "replaced-os", "replaced-data", "replaced-late"]
    assert platform.power_state(source) == "running"
    assert "replaced-new" in cloud.names(DISKS)
    assert not {"replaced-os", "replaced-data", "replaced-late"} & cloud.names(DISKS)


def test_a_machine_that_cannot_be_told_from_another_is_not_deleted(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "noid")
    machine = machine_of(platform, source).model_copy(update={"vm_id": ""})
    with pytest.raises(AzureConflict, match="no id to know it by"):
        platform.delete_machine(source, machine, Call())
    assert "noid" in cloud.names(MACHINES)
    assert {"noid-os", "noid-data", "noid-late"} <= cloud.names(DISKS)


def test_a_disk_made_anew_under_the_name_stays(cloud: Cloud, platform: AzurePlatform) -> None:
    source = _seed(cloud, "diskanew")
    machine = machine_of(platform, source)
    changed = machine.disks[1].model_copy(update={"unique_id": "another"})
    known = machine.model_copy(update={"disks": [machine.disks[0], changed]})

    assert platform.delete_machine(source, known, Call()) == ["diskanew", "diskanew-os"]
    assert "diskanew-data" in cloud.names(DISKS)


def test_a_disk_that_another_machine_has_by_now_stays(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "moved")
    holder = _seed(cloud, "holder")
    machine = machine_of(platform, source)
    taken = machine_of(platform, holder).disks[0]
    known = machine.model_copy(update={"disks": [machine.disks[0], taken]})

    assert platform.delete_machine(source, known, Call()) == ["moved", "moved-os"]
    assert "holder-os" in cloud.names(DISKS)


def test_a_lock_stops_it_before_anything_is_deleted(cloud: Cloud, platform: AzurePlatform) -> None:
    source = _seed(cloud, "lockedvm")
    machine = machine_of(platform, source)
    with cloud.misbehaving(
        operation="virtualMachines.delete", action="fail", status=409, code="ScopeLocked"
    ):
        with pytest.raises(AzureLocked):
            platform.delete_machine(source, machine, Call())
    assert "lockedvm" in cloud.names(MACHINES)
    assert {"lockedvm-os", "lockedvm-data", "lockedvm-late"} <= cloud.names(DISKS)


def test_a_delete_option_that_does_not_change_stops_it(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = _seed(cloud, "stubborn")
    machine = machine_of(platform, source)
    with cloud.misbehaving(
        operation="virtualMachines.update", action="lro_fail", code="NoSuchLuck"
    ):
        with pytest.raises(AzureFailed, match="NoSuchLuck"):
            platform.delete_machine(source, machine, Call())
    assert "stubborn" in cloud.names(MACHINES)


CALLER = """
import sys
from platforms.azure import AzurePlatform, AzureSettings
from platforms.base import Call
from models.machine import CloudMachine
from models.spec import AzureMachineRef

url, scope, ca, source, machine = sys.argv[1:]
settings = AzureSettings(
    base_url=url, credential_scopes=(scope,), ca_file=ca, polling_interval_seconds=0.05
)
AzurePlatform(settings).delete_machine(
    AzureMachineRef.model_validate_json(source), CloudMachine.model_validate_json(machine), Call()
)
"""


@pytest.mark.parametrize("operation", ["virtualMachines.delete", "disks.delete"])
def test_a_commit_killed_in_between_is_finished_by_the_next(cloud: Cloud, operation: str) -> None:
    platform = cloud.platform()
    name = f"killed-{operation.partition('.')[0].lower()}"
    source = _seed(cloud, name)
    machine = machine_of(platform, source)
    # The request arrives, or hangs on its way, and the caller dies before it hears of its end.
    where = "operations.get" if operation == "virtualMachines.delete" else operation
    hang = chaos.add(cloud.directory, {"operation": where, "action": "hang"})
    arguments = [
        cloud.ready["arm_url"],
        cloud.ready["credential_scope"],
        cloud.ready["ca_file"],
        source.model_dump_json(),
        machine.model_dump_json(),
    ]
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *arguments])
    wait_until(lambda: chaos.hits(cloud.directory, hang), 30)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    chaos.remove(cloud.directory, hang)

    gone = platform.delete_machine(source, machine, Memory().call())

    assert gone == [name, f"{name}-os", f"{name}-data", f"{name}-late"]
    assert name not in cloud.names(MACHINES)
    assert not {f"{name}-os", f"{name}-data", f"{name}-late"} & cloud.names(DISKS)
    assert f"{name}-nic" in cloud.names(INTERFACES)
