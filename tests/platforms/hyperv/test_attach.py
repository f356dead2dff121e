"""Disks come to the mover and go again, and nobody else's disk ever moves."""

from __future__ import annotations

import threading

import pytest

from lab.hyperv.model import Drive
from models.errors import (
    DiskMismatch,
    HypervisorFailed,
    MachineNotFound,
    MachineState,
    NoDiskSlot,
    Stopped,
)
from models.machine import AttachedDisk, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import HyperVPlatform, scripts
from platforms.hyperv.host import Host
from platforms.hyperv.notes import Attachment
from tests.platforms.hyperv.hypervisor import MIB, MOVER, RUN, Hypervisor, cloud, spec

SIZES = (16 * MIB, 8 * MIB)


def seed(hypervisor: Hypervisor) -> None:
    mover = hypervisor.state.machines[0]
    hypervisor.disk("C:\\mover.vhdx")
    mover.drives.append(_at(0, "C:\\mover.vhdx"))
    hypervisor.disk("C:\\foreign.vhdx")
    mover.drives.append(_at(2, "C:\\foreign.vhdx"))
    for name in ("web01", "web02", "web03", "web04", "full", "mismatch", "flaky", "wanted"):
        hypervisor.simple(name, *SIZES, notes="Call Anna first.\r\n")
    hypervisor.simple("running", *SIZES, state="Running")
    hypervisor.simple("ünïcode 東京 [x] 'q'", *SIZES)
    for number in range(4):
        hypervisor.simple(f"many{number}", *SIZES)


def _at(location: int, path: str) -> Drive:
    return Drive(
        controller_type="SCSI", controller_number=0, controller_location=location, path=path
    )


def _machine(platform: HyperVPlatform, wanted: FailbackSpec) -> OnPremisesMachine:
    report = platform.inspect(wanted, cloud(*SIZES), MOVER, Call())
    assert report.machine is not None
    return report.machine


def _mover_paths(hypervisor: Hypervisor) -> list[str]:
    mover = hypervisor.seen(MOVER)
    assert mover is not None
    return [drive.path for drive in mover.drives]


OWN = ["C:\\mover.vhdx", "C:\\foreign.vhdx"]


def test_attaching_and_detaching_twice_is_doing_it_once(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web01")
    machine = _machine(platform, wanted)
    disks = platform.attach_disks(wanted, machine, RUN, Call())
    # Location 2 is somebody's.
    assert [(d.disk_id, d.slot, d.size_bytes) for d in disks] == [
        ("os", "scsi-0-1", SIZES[0]),
        ("lun0", "scsi-0-3", SIZES[1]),
    ]
    devices = hypervisor.directory / "devices" / MOVER
    for disk, planned in zip(disks, machine.disks, strict=True):
        assert disk.identity == planned.identity
        assert (devices / disk.slot).stat().st_size == disk.size_bytes
        assert (devices / "by-id" / disk.identity).exists()
        assert not disk.created
    assert platform.attach_disks(wanted, machine, RUN, Call()) == disks
    assert len(_mover_paths(hypervisor)) == 4

    platform.detach_disks(wanted, disks, RUN, Call())
    platform.detach_disks(wanted, disks, RUN, Call())
    assert _mover_paths(hypervisor) == OWN
    after = hypervisor.seen("web01")
    assert after is not None
    assert after.notes == "Call Anna first.\r\n"
    assert [drive.path for drive in after.drives] == [d.path for d in machine.disks]
    for disk in disks:
        assert hypervisor.local(disk.path).exists()


def test_a_name_of_any_letters_is_only_a_name(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("ünïcode 東京 [x] 'q'")
    machine = _machine(platform, wanted)
    disks = platform.attach_disks(wanted, machine, RUN, Call())
    platform.detach_disks(wanted, disks, RUN, Call())
    assert _mover_paths(hypervisor) == OWN


def test_a_slot_taken_meanwhile_by_another_disk_is_left_alone(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web02")
    machine = _machine(platform, wanted)
    disks = platform.attach_disks(wanted, machine, RUN, Call())
    host = Host("hv1", hypervisor.host())
    mover = host.machine(host.mover_id(MOVER))
    host.ask("detach", scripts.remove_drives(mover.id, [disks[0].path]))
    host.ask("attach", scripts.add_drive(mover.id, "SCSI", 0, 1, "D:\\VMs\\web04\\disk0.vhdx"))
    platform.detach_disks(wanted, disks, RUN, Call())
    assert _mover_paths(hypervisor) == [*OWN, "D:\\VMs\\web04\\disk0.vhdx"]
    host.ask("detach", scripts.remove_drives(mover.id, ["D:\\VMs\\web04\\disk0.vhdx"]))
    host.close()


def test_another_run_neither_detaches_nor_forgets(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web03")
    disks = platform.attach_disks(wanted, _machine(platform, wanted), RUN, Call())
    platform.detach_disks(wanted, disks, "another-run", Call())
    assert len(_mover_paths(hypervisor)) == 4
    platform.detach_disks(wanted, disks, RUN, Call())
    assert _mover_paths(hypervisor) == OWN


def test_what_a_killed_attempt_attached_is_detached_too(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web03")
    platform.attach_disks(wanted, _machine(platform, wanted), RUN, Call())
    platform.detach_disks(wanted, [], RUN, Call())
    assert _mover_paths(hypervisor) == OWN
    assert platform.leftovers(wanted) == []


def test_a_machine_that_runs_keeps_its_disks(platform: HyperVPlatform) -> None:
    wanted = spec("running")
    with pytest.raises(MachineState, match="must be off"):
        platform.attach_disks(wanted, _machine(platform, wanted), RUN, Call())


def test_a_full_mover_says_so(hypervisor: Hypervisor) -> None:
    platform = hypervisor.platform(slots=2)
    wanted = spec("full")
    machine = _machine(platform, wanted)
    with pytest.raises(NoDiskSlot):
        platform.attach_disks(wanted, machine, RUN, Call())
    # What was attached before the place ran out is found and taken back by its path.
    attached = hypervisor.platform().attach_disks(wanted, machine, RUN, Call())
    platform.detach_disks(wanted, attached, RUN, Call())
    assert _mover_paths(hypervisor) == OWN
    platform.close()


def test_a_file_changed_since_preflight_is_refused(platform: HyperVPlatform) -> None:
    wanted = spec("mismatch")
    machine = _machine(platform, wanted)
    for change in ({"size_bytes": 1}, {"identity": "0" * 32}):
        disks = [machine.disks[0].model_copy(update=change), machine.disks[1]]
        with pytest.raises(DiskMismatch):
            platform.attach_disks(wanted, machine.model_copy(update={"disks": disks}), RUN, Call())


def test_a_place_that_only_looks_free_is_passed_over(
    platform: HyperVPlatform, hypervisor: Hypervisor, fair_weather: None
) -> None:
    wanted = spec("flaky")
    machine = _machine(platform, wanted)
    hypervisor.misbehave("Add-VMHardDiskDrive", "fail", times=2)
    disks = platform.attach_disks(wanted, machine, RUN, Call())
    assert [disk.slot for disk in disks] == ["scsi-0-4", "scsi-0-1"]
    platform.detach_disks(wanted, disks, RUN, Call())
    hypervisor.misbehave("Add-VMHardDiskDrive", "fail")
    with pytest.raises(HypervisorFailed, match="could not attach"):
        platform.attach_disks(wanted, machine, RUN, Call())
    platform.detach_disks(wanted, disks, RUN, Call())


def test_many_runs_share_a_mover_without_taking_each_others_places(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    other = hypervisor.platform()
    slots: dict[str, list[str]] = {}
    failures: list[BaseException] = []

    def attach(number: int) -> None:
        own = platform if number % 2 else other
        wanted = spec(f"many{number}")
        try:
            disks = own.attach_disks(wanted, _machine(own, wanted), f"run{number}", Call())
            slots[wanted.machine] = [disk.slot for disk in disks]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    taken = [slot for own in slots.values() for slot in own]
    assert len(set(taken)) == 8
    for number in range(4):
        wanted = spec(f"many{number}")
        platform.remove_leftovers(
            wanted,
            [one for one in platform.leftovers(wanted) if one.run_id == f"run{number}"],
            Call(),
        )
    assert _mover_paths(hypervisor) == OWN
    other.close()


def test_a_mover_that_is_not_found_parks_the_undo_and_keeps_the_claims(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web03")
    disks = platform.attach_disks(wanted, _machine(platform, wanted), RUN, Call())
    host = Host("hv1", hypervisor.host())
    mover_id = host.mover_id(MOVER)
    host.ask("rename", scripts.rename_machine(mover_id, "renamed"))
    with pytest.raises(MachineNotFound, match="should run in machine 'mover1'"):
        platform.detach_disks(wanted, disks, RUN, Call())
    # A run that never claimed anything has nothing at that mover.
    platform.detach_disks(wanted, [], "another-run", Call())
    claimed = hypervisor.seen("web03")
    assert claimed is not None
    assert claimed.notes.count(RUN) == 2

    host.ask("rename", scripts.rename_machine(mover_id, MOVER))
    platform.detach_disks(wanted, disks, RUN, Call())
    assert _mover_paths(hypervisor) == OWN
    assert platform.leftovers(wanted) == []
    host.close()


def _attach_at_once(
    platforms: dict[str, HyperVPlatform], wanted: FailbackSpec, machine: OnPremisesMachine
) -> tuple[dict[str, list[AttachedDisk]], dict[str, MachineState]]:
    """Let every run attach the machine's disks at the same moment; who could and who could not."""
    winners: dict[str, list[AttachedDisk]] = {}
    losers: dict[str, MachineState] = {}
    start = threading.Barrier(len(platforms))

    def attach(run_id: str, platform: HyperVPlatform) -> None:
        start.wait(30)
        try:
            winners[run_id] = platform.attach_disks(wanted, machine, run_id, Call())
        except MachineState as error:
            losers[run_id] = error

    threads = [threading.Thread(target=attach, args=item) for item in platforms.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(winners) + len(losers) == len(platforms)
    return winners, losers


@pytest.mark.parametrize("processes", ["one", "two"])
def test_two_runs_that_want_the_same_machine_never_both_get_it(
    platform: HyperVPlatform, hypervisor: Hypervisor, processes: str
) -> None:
    wanted = spec("wanted")
    machine = _machine(platform, wanted)
    # Platforms share no lock, as processes do not.
    other = hypervisor.platform() if processes == "two" else platform
    winners, losers = _attach_at_once({"run-a": platform, "run-b": other}, wanted, machine)

    assert len(winners) <= 1 if processes == "two" else len(winners) == 1
    for run_id, refusal in losers.items():
        assert "is claimed by run run-" in refusal.message
        assert "failback doctor" in refusal.hint
        other.detach_disks(wanted, [], run_id, Call())
    for run_id, disks in winners.items():
        # The loser's undo has not taken the disks from under the winner.
        assert {disk.path for disk in disks} <= set(_mover_paths(hypervisor))
        platform.detach_disks(wanted, disks, run_id, Call())
    assert _mover_paths(hypervisor) == OWN
    after = hypervisor.seen("wanted")
    assert after is not None
    assert after.notes == "Call Anna first.\r\n"
    if other is not platform:
        other.close()


def test_claims_written_over_by_another_process_do_not_leave_two_owners(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("wanted")
    machine = _machine(platform, wanted)
    disks = platform.attach_disks(wanted, machine, RUN, Call())
    before = hypervisor.seen("wanted")
    assert before is not None
    host = Host("hv1", hypervisor.host())
    host.ask("mark", scripts.set_notes(before.id, before.notes.replace(RUN, "run-b")))
    assert platform.attach_disks(wanted, machine, "run-b", Call()) == disks
    with pytest.raises(MachineState, match="claimed by run run-b"):
        platform.attach_disks(wanted, machine, RUN, Call())

    # Both have claimed: the first to let go leaves the disks to the other.
    host.ask("mark", scripts.set_notes(before.id, f"{before.notes}\r\n{_lines('run-b', disks)}"))
    platform.detach_disks(wanted, disks, RUN, Call())
    assert len(_mover_paths(hypervisor)) == 4
    platform.detach_disks(wanted, disks, "run-b", Call())
    assert _mover_paths(hypervisor) == OWN
    assert platform.leftovers(wanted) == []
    host.close()


def _lines(run_id: str, disks: list[AttachedDisk]) -> str:
    return "\r\n".join(Attachment(run_id, "wanted", disk.path).line for disk in disks)


def test_a_call_that_was_told_to_stop_stops(platform: HyperVPlatform) -> None:
    stop = threading.Event()
    stop.set()
    wanted = spec("web04")
    with pytest.raises(Stopped):
        platform.attach_disks(wanted, _machine(platform, wanted), RUN, Call(stop=stop))
