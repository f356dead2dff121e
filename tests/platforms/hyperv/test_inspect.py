"""Every preflight check says no for its own reason once, and all say yes to a machine in order."""

from __future__ import annotations

import pytest

from lab import chaos
from lab.hyperv.model import Adapter, Checkpoint, Drive
from models.machine import CloudMachine, OnPremisesReport, Verdict
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import HyperVPlatform
from platforms.hyperv.notes import Attachment, Creation
from tests.platforms.hyperv.hypervisor import GIB, MIB, MOVER, Hypervisor, alternate, cloud, spec

P = "FB-CHK-HYPERV-"
EXISTING = (16 * MIB, 8 * MIB)


def seed(hypervisor: Hypervisor) -> None:
    simple = hypervisor.simple
    simple("good", *EXISTING)
    simple("running", state="Running")
    checkpointed = simple("checkpointed")
    checkpointed.checkpoints.append(Checkpoint(name="before update", drives=checkpointed.drives))
    simple("replica", replication_state="Replicating", replication_mode="Primary")
    simple("no checkpoints", checkpoint_type="Disabled")
    simple("automatic", automatic_checkpoints=True)
    claim = Attachment("r7", "attached", "D:\\VMs\\attached\\disk0.vhdx")
    simple("attached", notes=f"Anna's\r\n{claim.line}")
    simple("born of a run", notes=Creation("r8", "born").line)
    simple("twice")
    simple("twice")
    hypervisor.disk("D:\\VMs\\old.vhd")
    hypervisor.machine("generation1", {"IDE 0:0": "D:\\VMs\\old.vhd"}, generation=1)
    hypervisor.disk("D:\\VMs\\sectors.vhdx", logical_sector=4096)
    hypervisor.machine("sectors", {"SCSI 0:0": "D:\\VMs\\sectors.vhdx"})
    hypervisor.disk("D:\\VMs\\base.vhdx")
    hypervisor.disk("D:\\VMs\\layer.avhdx", parent="D:\\VMs\\base.vhdx", kind="Differencing")
    hypervisor.machine("layered", {"SCSI 0:0": "D:\\VMs\\layer.avhdx"})
    hypervisor.machine("missing disk", {"SCSI 0:0": "D:\\VMs\\gone.vhdx"})
    shared = simple("shared")
    hypervisor.machine("other", {"SCSI 0:0": shared.drives[0].path})
    simple("adapters", adapters=[Adapter(name="Network Adapter"), Adapter(name="Second")])
    simple("trunk", adapters=[Adapter(name="Trunk", switch="LAN", vlan_mode="Trunk")])
    through = simple("pass-through")
    through.drives.append(
        Drive(
            controller_type="SCSI",
            controller_number=0,
            controller_location=1,
            path="Disk 2 60.00 GB Bus 0 Lun 0 Target 1",
            disk_number=2,
        )
    )
    simple("deaf", disabled_services=["Heartbeat"])
    simple("big", 60 * GIB)
    hypervisor.machine("stopped mover", mover=True)
    hypervisor.machine("modern mover", mover=True, state="Running", generation=2)
    hypervisor.disk("D:\\New\\taken\\taken-os.vhdx")


def _codes(report: OnPremisesReport, verdict: Verdict) -> list[str]:
    return [check.code for check in report.checks if check.verdict is verdict]


def test_a_machine_in_order_passes_every_check(platform: HyperVPlatform) -> None:
    report = platform.inspect(spec("good"), cloud(*EXISTING), MOVER, Call())
    assert {check.verdict for check in report.checks} == {Verdict.PASSED}
    assert report.machine is not None
    assert [(d.disk_id, d.controller, d.size_bytes) for d in report.machine.disks] == [
        ("os", "SCSI 0:0", 16 * MIB),
        ("lun0", "SCSI 0:1", 8 * MIB),
    ]
    assert all(len(disk.identity) == 32 for disk in report.machine.disks)
    assert not report.machine.created
    assert not any(disk.created for disk in report.machine.disks)


def test_preflight_touches_nothing(platform: HyperVPlatform, hypervisor: Hypervisor) -> None:
    before = hypervisor.now()
    files = sorted(str(path) for path in (hypervisor.directory / "hyperv").rglob("*"))
    for name in ("good", "running", "missing disk"):
        platform.inspect(spec(name), cloud(*EXISTING), MOVER, Call())
    platform.inspect(alternate("fresh"), cloud(*EXISTING), MOVER, Call())
    assert hypervisor.now() == before
    assert sorted(str(path) for path in (hypervisor.directory / "hyperv").rglob("*")) == files


ONE = cloud(16 * MIB)
CASES: list[tuple[str, FailbackSpec, CloudMachine | None, set[str]]] = [
    ("not there", spec("nobody"), ONE, {"MACHINE"}),
    ("running", spec("running"), ONE, {"NOT-OFF"}),
    ("attached by a run", spec("attached"), ONE, {"CLAIMED"}),
    ("created by a run", spec("born of a run"), ONE, {"CLAIMED"}),
    ("checkpointed", spec("checkpointed"), ONE, {"CHECKPOINTS"}),
    ("replica", spec("replica"), ONE, {"REPLICATION"}),
    ("checkpoints disabled", spec("no checkpoints"), ONE, {"CHECKPOINT-TYPE"}),
    ("two of a name", spec("twice"), ONE, {"READ"}),
    ("other generation", spec("generation1"), ONE, {"GENERATION"}),
    ("large sectors", spec("sectors"), ONE, {"DISK-FORMAT"}),
    ("differencing", spec("layered"), ONE, {"DISK-CHAIN"}),
    ("missing file", spec("missing disk"), ONE, {"DISK-READ", "DISK-SIZE"}),
    ("shared disk", spec("shared"), ONE, {"DISK-IN-USE"}),
    ("more disks in Azure", spec("good"), cloud(16 * MIB, 8 * MIB, MIB), {"DISK-COUNT"}),
    ("larger in Azure", spec("good"), cloud(16 * MIB, 9 * MIB), {"DISK-SIZE"}),
    ("smaller in Azure", spec("good"), cloud(16 * MIB, 7 * MIB), {"DISK-SIZE"}),
    ("crossed", spec("good"), cloud(8 * MIB, 16 * MIB), {"DISK-MAP", "DISK-SIZE"}),
    (
        "map to nowhere",
        spec("good", disks={"os": "D:\\no.vhdx"}),
        cloud(*EXISTING),
        {"DISK-MAP"},
    ),
    ("no such adapter", spec("adapters", adapters=[{"name": "Third"}]), ONE, {"ADAPTER"}),
    (
        "no such switch",
        spec("adapters", adapters=[{"name": "Second", "switch": "WAN"}]),
        ONE,
        {"SWITCH"},
    ),
    (
        "trunk",
        spec("trunk", adapters=[{"name": "Trunk", "vlan_id": 5}]),
        ONE,
        {"VLAN-MODE"},
    ),
    ("pass-through", spec("pass-through"), ONE, {"PASS-THROUGH"}),
    ("name is taken", alternate("good"), ONE, {"NAME"}),
    ("relative path", alternate("n1", storage_path="New"), ONE, {"STORAGE"}),
    ("file in the way", alternate("taken"), ONE, {"FILE-EXISTS"}),
    ("no space", alternate("n2"), cloud(60 * GIB), {"SPACE"}),
    ("no volume", alternate("n3", storage_path="X:\\New"), ONE, {"SPACE"}),
    ("no switch for subnet", alternate("n4", switches={"LAN": "WAN"}), ONE, {"SWITCH"}),
    ("size unknown", alternate("n5"), cloud(MIB, processors=None), {"MACHINE-SIZE"}),
    ("vhd on generation 2", alternate("n6", disks={"os": "D:\\a.vhd"}), ONE, {"DISK-FORMAT"}),
    ("adapter not made", alternate("n7", adapters=[{"name": "Second"}]), ONE, {"ADAPTER"}),
]


@pytest.mark.parametrize(
    ("wanted", "shape", "codes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_check_says_no_with_its_own_code(
    platform: HyperVPlatform, wanted: FailbackSpec, shape: CloudMachine, codes: set[str]
) -> None:
    report = platform.inspect(wanted, shape, MOVER, Call())
    assert set(_codes(report, Verdict.FAILED)) == {P + code for code in codes}
    for check in report.checks:
        if check.verdict is Verdict.FAILED:
            assert check.seen
            assert check.advice
    # The mover is looked at whatever the machine is like.
    assert any(check.name == "mover runs" for check in report.checks)


@pytest.mark.parametrize(
    ("name", "size", "code"),
    [
        ("automatic", 16 * MIB, "AUTOMATIC-CHECKPOINTS"),
        ("deaf", 16 * MIB, "HEARTBEAT"),
        ("big", 60 * GIB, "ROOM"),
    ],
)
def test_warnings_forbid_nothing(platform: HyperVPlatform, name: str, size: int, code: str) -> None:
    report = platform.inspect(spec(name), cloud(size), MOVER, Call())
    assert _codes(report, Verdict.FAILED) == []
    assert _codes(report, Verdict.WARNING) == [P + code]


@pytest.mark.parametrize(
    ("mover", "code"),
    [("nobody", "MOVER"), ("stopped mover", "MOVER-OFF"), ("good", "MOVER-SELF")],
)
def test_a_mover_that_cannot_serve_is_named(hypervisor: Hypervisor, mover: str, code: str) -> None:
    platform = hypervisor.platform(mover_vms={MOVER: mover})
    report = platform.inspect(spec("good"), cloud(*EXISTING), MOVER, Call())
    assert P + code in _codes(report, Verdict.FAILED)
    platform.close()


def test_a_mover_that_takes_no_vhd_is_found(hypervisor: Hypervisor) -> None:
    platform = hypervisor.platform(mover_vms={MOVER: "modern mover"})
    report = platform.inspect(spec("generation1"), cloud(16 * MIB, generation=1), MOVER, Call())
    assert _codes(report, Verdict.FAILED) == [P + "MOVER-GENERATION"]
    platform.close()


def test_a_mover_without_places_is_found(hypervisor: Hypervisor) -> None:
    platform = hypervisor.platform(slots=1)
    report = platform.inspect(spec("good"), cloud(*EXISTING), MOVER, Call())
    assert _codes(report, Verdict.FAILED) == [P + "MOVER-SLOTS"]
    platform.close()


def test_a_machine_to_be_created_is_planned_in_full(platform: HyperVPlatform) -> None:
    shape = cloud(16 * MIB, 8 * MIB, 4 * MIB)
    report = platform.inspect(alternate("fresh"), shape, MOVER, Call())
    assert _codes(report, Verdict.FAILED) == []
    machine = report.machine
    assert machine is not None
    assert machine.created
    assert machine.processors == 2
    assert [(d.disk_id, d.path, d.controller) for d in machine.disks] == [
        ("os", "D:\\New\\fresh\\fresh-os.vhdx", "SCSI 0:0"),
        ("lun0", "D:\\New\\fresh\\fresh-lun0.vhdx", "SCSI 0:1"),
        ("lun1", "D:\\New\\fresh\\fresh-lun1.vhdx", "SCSI 0:2"),
    ]
    assert [(a.name, a.switch) for a in machine.adapters] == [("Network Adapter", "LAN")]


def test_without_azures_half_what_is_possible_is_checked(platform: HyperVPlatform) -> None:
    report = platform.inspect(spec("running"), None, MOVER, Call())
    assert _codes(report, Verdict.FAILED) == [P + "NOT-OFF"]
    assert report.machine is None


def test_a_host_without_the_hyper_v_module_says_so(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    hypervisor.misbehave(
        "Get-VMHost",
        "fail",
        code="CommandNotFoundException",
        message="The term 'Get-VMHost' is not recognized as the name of a cmdlet.",
    )
    try:
        report = platform.inspect(spec("good"), cloud(*EXISTING), MOVER, Call())
    finally:
        chaos.clear(hypervisor.directory)
    assert _codes(report, Verdict.FAILED) == [P + "MODULE"]
