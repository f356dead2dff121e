"""The guest keeps its promises: what it acknowledged is there; it boots from nothing less."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from lab.guest import GuestRunner, verify_acknowledged
from lab.records import SLOT, open_log
from tests.lab.images import FileDisk, file_system_is_clean, make_disks
from tests.waiting import wait_until


def _guest(disks: dict[int, FileDisk], folder: Path, site: str = "azure") -> GuestRunner:
    return GuestRunner(
        site=site,
        vm="web01",
        disks=disks,
        state_dir=folder,
        records_per_second=500,
        boot_seconds=0.02,
        addresses=["10.0.0.4"],
    )


def _run_until(guest: GuestRunner, sequence: int) -> None:
    guest.start()
    wait_until(lambda: guest.status()["sequence"] >= sequence, 20)


def test_every_acknowledged_record_is_on_the_disks_and_the_file_system_stays_clean(
    tmp_path: Path,
) -> None:
    disks = make_disks(tmp_path)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 100)
    assert guest.status()["heartbeat"] == "OK"
    assert guest.status()["addresses"] == ["10.0.0.4"]
    assert file_system_is_clean(disks[0].path)
    assert guest.stop(graceful=True, timeout=5)
    verdict = verify_acknowledged(disks, [tmp_path / "ack-azure.jsonl"])
    assert verdict.whole
    assert verdict.checked >= 100
    assert file_system_is_clean(disks[0].path)


def test_numbers_go_on_after_a_reboot_at_the_other_site_and_the_downtime_is_measured(
    tmp_path: Path,
) -> None:
    disks = make_disks(tmp_path)
    azure = _guest(disks, tmp_path)
    _run_until(azure, 30)
    assert azure.stop(graceful=True, timeout=5)
    last = azure.status()["sequence"]
    onprem = _guest(dict(reversed(disks.items())), tmp_path, "onprem")
    _run_until(onprem, last + 10)
    onprem.stop(graceful=False, timeout=5)
    acknowledged = [tmp_path / "ack-azure.jsonl", tmp_path / "ack-onprem.jsonl"]
    verdict = verify_acknowledged(disks, acknowledged)
    assert verdict.whole
    assert verdict.downtime is not None
    assert 0 < verdict.downtime < 20


def test_records_that_the_ring_has_overwritten_are_no_longer_due(tmp_path: Path) -> None:
    disks = make_disks(tmp_path, slots=16)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 100)
    guest.stop(graceful=False, timeout=5)
    verdict = verify_acknowledged(disks, [tmp_path / "ack-azure.jsonl"])
    assert verdict.whole
    assert verdict.checked == 32
    assert verdict.overwritten >= 68
    _run_until(guest, 200)
    guest.stop(graceful=False, timeout=5)


def test_a_lost_a_stale_and_a_torn_record_are_found(tmp_path: Path) -> None:
    disks = make_disks(tmp_path)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 60)
    guest.stop(graceful=True, timeout=5)
    log = open_log(list(disks.values()))
    for sequence, content in ((10, bytes(SLOT)), (21, log.read(1)), (32, log.read(32)[:-1] + b"?")):
        volume, slot = log.place(sequence)
        volume.disk.write(volume.layout.slot_offset(slot), content)
    verdict = verify_acknowledged(disks, [tmp_path / "ack-azure.jsonl"])
    assert verdict.corrupt == [10, 32]
    assert verdict.missing == [21]


def test_a_machine_with_a_damaged_log_does_not_boot_and_says_why(tmp_path: Path) -> None:
    disks = make_disks(tmp_path)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 40)
    guest.stop(graceful=True, timeout=5)
    log = open_log(list(disks.values()))
    volume, slot = log.place(17)
    whole = log.read(17)
    empty = log.read(guest.status()["sequence"] + 50)
    for content, reason in (
        (whole[:512] + bytes(SLOT - 512), "bad checksum"),
        (empty, "record 17 is missing"),
        (log.read(15), "record 15 stands in slot"),
    ):
        volume.disk.write(volume.layout.slot_offset(slot), content)
        guest.start()
        wait_until(lambda: guest.status()["error"] is not None, 10)
        assert reason in guest.status()["error"]
        assert guest.status()["heartbeat"] == "NoContact"
        assert not guest.stop(graceful=True, timeout=1)
        assert guest.stop(graceful=False, timeout=5)
    volume.disk.write(volume.layout.slot_offset(slot), whole)
    _run_until(guest, guest.status()["sequence"] + 1)
    guest.stop(graceful=False, timeout=5)


def test_a_stale_second_disk_and_a_missing_one_keep_the_machine_from_booting(
    tmp_path: Path,
) -> None:
    disks = make_disks(tmp_path)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 20)
    guest.stop(graceful=True, timeout=5)
    stale = disks[1].path.read_bytes()
    _run_until(guest, 60)
    guest.stop(graceful=True, timeout=5)
    disks[1].path.write_bytes(stale)
    for machine, reason in ((disks, "is missing"), ({0: disks[0]}, "found 1 of the machine's 2")):
        broken = _guest(machine, tmp_path)
        _start_and_fail(broken)
        assert reason in broken.status()["error"]
        broken.stop(graceful=False, timeout=5)


def test_a_guest_can_refuse_to_shut_down_fall_silent_and_fail_to_boot(tmp_path: Path) -> None:
    disks = make_disks(tmp_path)
    guest = _guest(disks, tmp_path)
    _run_until(guest, 5)
    guest.refuse_shutdown = True
    guest.mute = True
    assert not guest.stop(graceful=True, timeout=5)
    assert guest.running
    assert guest.status()["heartbeat"] == "NoContact"
    assert guest.stop(graceful=False, timeout=5)
    guest.boot_failure = "no boot loader"
    guest.start()
    wait_until(lambda: guest.status()["error"] == "no boot loader", 10)
    guest.stop(graceful=False, timeout=5)
    assert not guest.running


def test_killing_the_process_at_a_random_instant_loses_no_acknowledged_record(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    disks = make_disks(tmp_path)
    acknowledged = tmp_path / "ack-azure.jsonl"
    for _ in range(4):
        before = _lines(acknowledged)
        wanted = before + rng.randrange(20, 200)
        process = subprocess.Popen(
            [sys.executable, "-c", _FOREVER, str(tmp_path)], stderr=subprocess.DEVNULL
        )
        _wait_for_lines(acknowledged, wanted)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        verdict = verify_acknowledged(disks, [acknowledged])
        assert verdict.whole
        assert open_log(list(disks.values())).last() is not None
    assert file_system_is_clean(disks[0].path)


_FOREVER = """
import sys, threading
from pathlib import Path
from lab.guest import GuestRunner
from tests.lab.images import FileDisk
folder = Path(sys.argv[1])
disks = {lun: FileDisk(folder / f"disk{lun}.raw") for lun in (0, 1)}
GuestRunner(site="azure", vm="web01", disks=disks, state_dir=folder, records_per_second=1000,
            boot_seconds=0).start()
threading.Event().wait()
"""


def _start_and_fail(guest: GuestRunner) -> None:
    guest.start()
    wait_until(lambda: guest.status()["error"] is not None, 10)


def _wait_for_lines(path: Path, wanted: int) -> None:
    wait_until(lambda: _lines(path) >= wanted, 30)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
