"""What a dead run left behind is found by its marks and removed; without a mark nothing is."""

from __future__ import annotations

import pytest

from models.errors import HypervisorUnreachable
from models.machine import Leftover, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import HyperVPlatform
from tests.platforms.hyperv.hypervisor import MIB, MOVER, Hypervisor, alternate, cloud, spec

SIZES = (16 * MIB, 8 * MIB)


def seed(hypervisor: Hypervisor) -> None:
    hypervisor.simple("web01", *SIZES, notes="Anna's")
    hypervisor.simple("failback-like", *SIZES)
    hypervisor.simple("talks", *SIZES, notes="see failback-run: in the wiki")
    hypervisor.machine("failback-unborn")
    hypervisor.machine("alive", state="Running", notes="failback-run:r9 failback-machine:alive")


def _machine(platform: HyperVPlatform, wanted: FailbackSpec) -> OnPremisesMachine:
    report = platform.inspect(wanted, cloud(*SIZES), MOVER, Call())
    assert report.machine is not None
    return report.machine


def _of(platform: HyperVPlatform, run_id: str) -> list[Leftover]:
    return [one for one in platform.leftovers(spec("web01")) if one.run_id == run_id]


def test_only_what_bears_a_mark_is_left_over(platform: HyperVPlatform) -> None:
    found = {(one.kind, one.name, one.run_id) for one in platform.leftovers(spec("web01"))}
    assert found == {("machine", "failback-unborn", "unborn"), ("machine", "alive", "r9")}


def test_everything_a_dead_run_left_is_removed_and_nothing_else(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    before = hypervisor.now()
    existing = spec("web01")
    machine = _machine(platform, existing)
    platform.attach_disks(existing, machine, "dead", Call())
    platform.take_checkpoint(existing, machine, "dead", Call())
    fresh = alternate("fresh")
    made = platform.create_machine(fresh, _machine(platform, fresh), "dead", Call())
    platform.attach_disks(fresh, made, "dead", Call())

    found = _of(platform, "dead")
    assert sorted((one.kind, one.machine) for one in found) == [
        ("attached-disk", "fresh"),
        ("attached-disk", "fresh"),
        ("attached-disk", "web01"),
        ("attached-disk", "web01"),
        ("checkpoint", "web01"),
        ("machine", "fresh"),
    ]
    assert {one.place for one in found if one.kind == "attached-disk"} == {"hv1/mover1"}
    removed = platform.remove_leftovers(existing, found, Call())
    assert sorted(map(repr, removed)) == sorted(map(repr, found))
    assert _of(platform, "dead") == []
    assert not list(hypervisor.local("D:\\New").rglob("*.vhdx"))
    after = hypervisor.now()
    assert after.machines == before.machines


def test_what_is_not_there_any_more_is_not_removed(platform: HyperVPlatform) -> None:
    invented = [
        Leftover(kind="machine", name="web01", place="hv1", run_id="dead", machine="web01"),
        Leftover(
            kind="attached-disk",
            name="D:\\VMs\\web01\\disk0.vhdx",
            place="hv1/mover1",
            run_id="dead",
            machine="web01",
        ),
        Leftover(kind="checkpoint", name="x", place="hv1/web01", run_id="x", machine="web01"),
    ]
    assert platform.remove_leftovers(spec("web01"), invented, Call()) == []


def test_a_running_machine_stays_and_does_not_keep_the_others(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    found = platform.leftovers(spec("web01"))
    removed = platform.remove_leftovers(spec("web01"), found, Call())
    assert [one.name for one in removed] == ["failback-unborn"]
    assert hypervisor.seen("alive") is not None
    assert hypervisor.seen("failback-like") is not None


def test_a_host_that_is_gone_is_an_error_and_not_an_empty_list(hypervisor: Hypervisor) -> None:
    platform = hypervisor.platform(endpoint="https://127.0.0.1:9/wsman")
    with pytest.raises(HypervisorUnreachable):
        platform.leftovers(spec("web01"))
