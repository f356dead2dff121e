"""A machine boots, writes, and its disks are again what they were to the last byte; or not, when a
person keeps what it wrote. With real guests that write real records."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from lab.hyperv.model import Checkpoint
from models.errors import MachineState
from models.machine import OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import HyperVPlatform
from tests.lab.images import make_disks
from tests.platforms.hyperv.hypervisor import MIB, MOVER, RUN, Hypervisor, alternate, cloud, spec
from tests.waiting import wait_until

SIZES = (64 * MIB, 16 * MIB)
NAMES = ("web01", "web02", "web03", "web04")


def seed(hypervisor: Hypervisor) -> None:
    images = make_disks(hypervisor.directory)
    for name in NAMES:
        hypervisor.simple(name, *(images[number].size for number in sorted(images)))
        for number, image in images.items():
            shutil.copyfile(image.path, hypervisor.local(f"D:\\VMs\\{name}\\disk{number}.vhdx"))


def _machine(platform: HyperVPlatform, wanted: FailbackSpec) -> OnPremisesMachine:
    report = platform.inspect(wanted, cloud(*SIZES), MOVER, Call())
    assert report.machine is not None
    return report.machine


def _digests(hypervisor: Hypervisor, machine: OnPremisesMachine) -> list[str]:
    return [_digest(hypervisor.local(disk.path)) for disk in machine.disks]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _boot_and_write(
    platform: HyperVPlatform,
    hypervisor: Hypervisor,
    wanted: FailbackSpec,
    machine: OnPremisesMachine,
) -> None:
    platform.start(wanted, machine, Call())
    platform.start(wanted, machine, Call())
    wait_until(lambda: platform.health(wanted, machine).heartbeat, 20)
    wait_until(lambda: _acknowledged(hypervisor, machine.name) > 5, 20)


def _acknowledged(hypervisor: Hypervisor, name: str) -> int:
    """Records that the guest on-premises has acknowledged."""
    files = hypervisor.directory.rglob(f"{name}/ack-onprem.jsonl")
    return sum(len(file.read_text().splitlines()) for file in files)


def test_a_discarded_checkpoint_leaves_the_disks_byte_for_byte(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web01")
    machine = _machine(platform, wanted)
    before = _digests(hypervisor, machine)
    platform.take_checkpoint(wanted, machine, RUN, Call())
    platform.take_checkpoint(wanted, machine, RUN, Call())
    assert [c.name for c in _seen(hypervisor, "web01")] == [f"failback-{RUN}"]
    _boot_and_write(platform, hypervisor, wanted, machine)
    with pytest.raises(MachineState, match="must be off"):
        platform.discard_checkpoint(wanted, machine, RUN, Call())
    platform.turn_off(wanted, machine, Call())
    platform.turn_off(wanted, machine, Call())
    platform.discard_checkpoint(wanted, machine, RUN, Call())
    assert _digests(hypervisor, machine) == before
    platform.discard_checkpoint(wanted, machine, RUN, Call())
    _in_order_again(platform, hypervisor, wanted, machine)


def test_kept_changes_are_in_the_disks(platform: HyperVPlatform, hypervisor: Hypervisor) -> None:
    wanted = spec("web02")
    machine = _machine(platform, wanted)
    before = _digests(hypervisor, machine)
    platform.take_checkpoint(wanted, machine, RUN, Call())
    _boot_and_write(platform, hypervisor, wanted, machine)
    platform.keep_checkpoint_changes(wanted, machine, RUN, Call())
    assert platform.health(wanted, machine).state == "running"
    platform.keep_checkpoint_changes(wanted, machine, RUN, Call())
    platform.turn_off(wanted, machine, Call())
    assert _digests(hypervisor, machine)[0] != before[0]
    _in_order_again(platform, hypervisor, wanted, machine)


def test_checkpoints_of_others_are_neither_removed_nor_waited_for(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web03")
    machine = _machine(platform, wanted)
    platform.take_checkpoint(wanted, machine, "other-run", Call())
    platform.discard_checkpoint(wanted, machine, RUN, Call())
    platform.keep_checkpoint_changes(wanted, machine, "other", Call())
    assert [c.name for c in _seen(hypervisor, "web03")] == ["failback-other-run"]
    platform.discard_checkpoint(wanted, machine, "other-run", Call())
    assert _seen(hypervisor, "web03") == []


def test_a_running_machine_is_not_checkpointed(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web04")
    machine = _machine(platform, wanted)
    platform.start(wanted, machine, Call())
    with pytest.raises(MachineState, match="must be off"):
        platform.take_checkpoint(wanted, machine, RUN, Call())
    platform.turn_off(wanted, machine, Call())


def test_a_committed_machine_is_nobodys_leftover(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = alternate("fresh")
    report = platform.inspect(wanted, cloud(*SIZES), MOVER, Call())
    assert report.machine is not None
    machine = platform.create_machine(wanted, report.machine, RUN, Call())
    platform.take_checkpoint(wanted, machine, RUN, Call())
    found = [(one.kind, one.run_id) for one in platform.leftovers(wanted)]
    assert found == [("machine", RUN), ("checkpoint", RUN)]
    platform.keep_checkpoint_changes(wanted, machine, RUN, Call())
    assert platform.leftovers(wanted) == []
    platform.delete_machine(wanted, machine, RUN, Call())
    assert hypervisor.seen("fresh") is not None


def _in_order_again(
    platform: HyperVPlatform,
    hypervisor: Hypervisor,
    wanted: FailbackSpec,
    machine: OnPremisesMachine,
) -> None:
    assert _seen(hypervisor, machine.name) == []
    assert _machine(platform, wanted) == machine
    folder = hypervisor.local(machine.disks[0].path).parent
    assert sorted(file.name for file in folder.glob("*.*")) == ["disk0.vhdx", "disk1.vhdx"]


def _seen(hypervisor: Hypervisor, name: str) -> list[Checkpoint]:
    machine = hypervisor.seen(name)
    assert machine is not None
    return machine.checkpoints
