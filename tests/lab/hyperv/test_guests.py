"""Machines on the host: guests that boot from VHDs, refuse torn ones, survive kills, misbehave."""

import subprocess
import sys
import threading

import pytest

from lab.chaos import add, remove
from lab.guest import verify_acknowledged
from lab.records import open_log
from tests.lab.hyperv.harness import LabHost, Refused
from tests.lab.images import MIB, FileDisk
from tests.waiting import wait_until

DISKS = {0: 64 * MIB, 1: 16 * MIB}


class PayloadDisk(FileDisk):
    """The disk in a VHD file."""

    @property
    def size(self) -> int:
        return super().size - 512


def _disks(host: LabHost) -> dict[int, PayloadDisk]:
    return {n: PayloadDisk(host.file(f"D:\\VMs\\web01\\disk{n}.vhd")) for n in DISKS}


def _heartbeat(host: LabHost) -> str:
    return str(host.ps("[string](Get-VM web01).Heartbeat"))


def _boot(host: LabHost) -> None:
    host.ps("Start-VM web01")
    wait_until(lambda: _heartbeat(host) == "OkApplicationsUnknown", 15)


def _wait_beyond(host: LabHost, sequence: int) -> None:
    wait_until(lambda: host.machine("web01")["guest"]["sequence"] > sequence, 15)


def _acknowledged(host: LabHost) -> bool:
    file = host.directory / "guest" / "web01" / "ack-onprem.jsonl"
    verdict = verify_acknowledged(_disks(host), [file])
    return verdict.whole and verdict.checked > 0


def test_a_guest_boots_from_its_vhds_and_shuts_down_cleanly(host: LabHost) -> None:
    _boot(host)
    assert host.ps("(Get-VM web01).Uptime.TotalSeconds") > 0
    assert host.ps("[string](Get-VMIntegrationService web01 Heartbeat).OperationalStatus") == "OK"
    wait_until(lambda: host.machine("web01")["guest"]["sequence"] > 10, 10)
    host.ps("Stop-VM -Name web01")
    assert host.ps("[string](Get-VM web01).State") == "Off"
    assert _acknowledged(host)


def test_a_machine_with_a_torn_log_runs_but_never_beats(host: LabHost) -> None:
    _boot(host)
    wait_until(lambda: host.machine("web01")["guest"]["sequence"] > 10, 10)
    host.ps("Stop-VM web01 -Force")
    log = open_log(list(_disks(host).values()))
    volume, slot = log.place(4)
    volume.disk.write(volume.layout.slot_offset(slot) + 600, b"torn")
    host.ps("Start-VM web01")
    wait_until(lambda: host.machine("web01")["guest"]["error"], 10)
    assert "bad checksum" in host.machine("web01")["guest"]["error"]
    assert _heartbeat(host) == "NoContact"
    assert host.ps("@((Get-VMNetworkAdapter web01).IPAddresses)") == []
    with pytest.raises(Refused, match="NonInteractive"):
        host.ps("Stop-VM web01")
    with pytest.raises(Refused, match="not ready"):
        host.ps("Stop-VM web01 -Force")
    host.ps("Stop-VM web01 -TurnOff")


def test_a_killed_host_goes_on_with_its_running_machines(host: LabHost) -> None:
    _boot(host)
    for _ in range(3):
        seen = host.machine("web01")["guest"]["sequence"]
        host.kill()
        assert _acknowledged(host)
        host.start()
        _wait_beyond(host, seen)
    host.ps("Stop-VM web01 -Force")
    assert _acknowledged(host)


def test_a_second_host_on_the_same_directory_is_refused(host: LabHost) -> None:
    command = [sys.executable, "-m", "lab.hyperv", "--dir", str(host.directory)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert second.returncode == 1
    assert "another host serves" in second.stderr
    assert host.ps("(Get-VMHost).Name") == "HV01"


def test_chaos_fails_delays_and_drops_a_cmdlet(host: LabHost) -> None:
    add(
        host.directory,
        {
            "emulator": "hyperv",
            "operation": "Start-VM",
            "resource": "web01",
            "action": "fail",
            "code": "OperationFailed",
            "message": "The worker process is gone.",
            "times": 1,
        },
    )
    with pytest.raises(Refused, match="worker process is gone") as caught:
        host.ps("Get-VM web01 | Start-VM")
    assert caught.value.fqid == "OperationFailed,Microsoft.HyperV.PowerShell.Commands.StartVM"
    for when, made in (("before", False), ("after", True)):
        rule = {"operation": "Set-VM", "action": "drop", "when": when, "times": 1}
        add(host.directory, rule)
        with pytest.raises(Exception, match=r"(?i)connection|closed|eof"):
            host.ps(f"Set-VM web01 -Notes '{when}'")
        assert (host.machine("web01")["notes"] == when) is made


def test_chaos_hangs_until_its_rule_is_removed(host: LabHost) -> None:
    host.ps("(Get-VMHost).Name")
    rule = add(host.directory, {"operation": "Get-VMHost", "action": "hang"})
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(host.ps("(Get-VMHost).Name")))
    asking.start()
    asking.join(0.5)
    assert not answers
    remove(host.directory, rule)
    asking.join(10)
    assert answers == ["HV01"]


def test_chaos_keeps_a_guest_from_stopping_beating_and_booting(host: LabHost) -> None:
    add(host.directory, {"operation": "Start-VM", "action": "no_heartbeat", "times": 1})
    host.ps("Start-VM web01")
    wait_until(lambda: host.machine("web01")["guest"]["sequence"] > 3, 15)
    assert _heartbeat(host) == "NoContact"
    host.ps("Stop-VM web01 -TurnOff")
    add(host.directory, {"operation": "Start-VM", "action": "boot_failure", "times": 1})
    host.ps("Start-VM web01")
    wait_until(lambda: host.machine("web01")["guest"]["error"], 15)
    host.ps("Stop-VM web01 -TurnOff")
    _boot(host)
    add(host.directory, {"operation": "Stop-VM", "action": "refuse_shutdown", "times": 1})
    with pytest.raises(Refused, match="not ready"):
        host.ps("Stop-VM web01 -Force")
    assert host.ps("[string](Get-VM web01).State") == "Running"
    host.ps("Stop-VM web01 -Force")


def test_chaos_on_the_wire_is_a_fault(host: LabHost) -> None:
    rule = {"operation": "wsman.Create", "action": "throttle", "times": 1}
    add(host.directory, rule)
    with pytest.raises(Exception, match="maximum number of concurrent"):
        host.protocol().open_shell()
    assert host.protocol().open_shell()
