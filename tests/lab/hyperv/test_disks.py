"""Disks: VHDs that qemu accepts, devices of exactly the disk's size, layers, kills in between."""

import contextlib
import os
import random
import shutil
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from lab.guest import verify_acknowledged
from lab.hyperv.disks import BLOCK, ImageDisk, LayerDisk
from lab.vhd import geometry, pack_footer, parse_footer
from tests.lab.hyperv.harness import LabHost, Refused
from tests.lab.images import MIB
from tests.waiting import wait_until

DISK0 = "D:\\VMs\\web01\\disk0.vhd"
DISK1 = "D:\\VMs\\web01\\disk1.vhd"
ATTACH = "Add-VMHardDiskDrive -VMName mover01 SCSI 0 {} '{}'"
_PAYLOADS = ((0, DISK0, 64 * MIB), (1, DISK1, 16 * MIB))
DETACH = "Remove-VMHardDiskDrive -VMName mover01 SCSI 0 {}"


@pytest.mark.parametrize("size", [3 * MIB, 64 * MIB, 4 << 30, 2040 << 30])
def test_a_footer_is_read_back_and_a_changed_one_is_not(size: int) -> None:
    identifier = uuid.uuid4()
    footer = pack_footer(size, identifier)
    parsed = parse_footer(footer)
    assert parsed is not None
    assert (parsed.size_bytes, parsed.identifier, parsed.disk_type) == (size, identifier, 2)
    assert parse_footer(footer[:100] + b"\x01" + footer[101:]) is None
    cylinders, heads, sectors = geometry(size)
    assert cylinders * heads * sectors <= size // 512


def test_a_fixed_vhd_is_one_to_other_programs(host: LabHost) -> None:
    host.ps("New-VHD -Path 'D:\\new.vhd' -SizeBytes 20MB -Fixed")
    file = host.file("D:\\new.vhd")
    assert file.stat().st_size == 20 * MIB + 512
    footer = parse_footer(file.read_bytes()[-512:])
    assert footer is not None
    assert str(footer.identifier).upper() == host.ps("(Get-VHD 'D:\\new.vhd').DiskIdentifier")
    host.ps("Resize-VHD -Path 'D:\\new.vhd' -SizeBytes 24MB")
    host.ps("Set-VHD -Path 'D:\\new.vhd' -ResetDiskIdentifier -Force")
    assert host.ps("(Get-VHD 'D:\\new.vhd').DiskIdentifier") != str(footer.identifier).upper()
    for path, size in (("D:\\new.vhd", 24 * MIB), (DISK0, 64 * MIB)):
        _judge(host.file(path), size)


def _judge(file: Path, size: int) -> None:
    """What qemu-img and libvhdi say, where they are installed; the footer itself always."""
    footer = parse_footer(file.read_bytes()[-512:])
    assert footer is not None
    assert footer.size_bytes == size == file.stat().st_size - 512
    if shutil.which("qemu-img"):
        said = subprocess.run(
            ["qemu-img", "info", "-f", "vpc", file], capture_output=True, text=True, check=True
        )
        assert f"({size} bytes)" in said.stdout
    if shutil.which("vhdiinfo"):
        said = subprocess.run(["vhdiinfo", file], capture_output=True, text=True, check=True)
        assert str(footer.identifier) in said.stdout.lower()


def test_an_attached_disk_is_a_device_of_exactly_its_size_and_comes_back_whole(
    host: LabHost,
) -> None:
    before = host.file(DISK0).read_bytes()
    identifier = host.ps(f"(Get-VHD '{DISK0}').DiskIdentifier").lower().replace("-", "")
    host.ps(ATTACH.format(5, DISK0))
    device = host.device("scsi-0-5")
    assert device.stat().st_size == 64 * MIB
    assert host.device(f"by-id/{identifier}").resolve() == device.resolve()
    assert device.read_bytes() == before[:-512]
    assert host.ps(f"(Get-VHD '{DISK0}').Size") == 64 * MIB
    assert host.ps(f"(Get-VHD '{DISK0}').Attached") is True
    with device.open("r+b") as file:
        file.seek(4096)
        file.write(b"written by the mover")
    host.ps(DETACH.format(5))
    assert not device.is_symlink()
    assert not host.device(f"by-id/{identifier}").is_symlink()
    after = host.file(DISK0).read_bytes()
    assert after[-512:] == before[-512:]
    assert after[4096:4116] == b"written by the mover"
    _judge(host.file(DISK0), 64 * MIB)


def test_a_disk_at_the_running_mover_is_in_use(host: LabHost) -> None:
    host.ps(ATTACH.format(1, DISK0))
    for call in (
        "Start-VM web01",
        ATTACH.format(1, DISK1),
        ATTACH.format(2, DISK0),
        f"Remove-Item '{DISK0}'",
        f"Resize-VHD '{DISK0}' -SizeBytes 128MB",
    ):
        with pytest.raises(Refused):
            host.ps(call)
    host.ps(DETACH.format(1))
    host.ps("Start-VM web01")
    with pytest.raises(Refused, match="used by another process"):
        host.ps(ATTACH.format(1, DISK0))


def test_stopping_the_mover_gives_the_disks_their_footers_back(host: LabHost) -> None:
    host.ps(ATTACH.format(1, DISK0))
    host.ps("Stop-VM mover01 -TurnOff")
    assert not host.device("scsi-0-1").is_symlink()
    _judge(host.file(DISK0), 64 * MIB)
    host.ps("Start-VM mover01")
    assert host.device("scsi-0-1").stat().st_size == 64 * MIB


def test_vhdx_disks_are_raw_payload_with_their_own_identity(host: LabHost) -> None:
    path = "D:\\VMs\\gen2\\os.vhdx"
    host.ps(ATTACH.format(3, path))
    assert host.device("scsi-0-3").stat().st_size == 16 * MIB
    first = host.ps(f"(Get-VHD '{path}').DiskIdentifier")
    host.kill()
    host.start()
    assert host.ps(f"(Get-VHD '{path}').DiskIdentifier") == first
    assert host.device("scsi-0-3").stat().st_size == 16 * MIB


def test_kills_at_random_instants_never_leave_a_disk_in_between(host: LabHost) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    payload = host.file(DISK0).read_bytes()[: 64 * MIB]
    for _ in range(6):
        _toggle_until_killed(host, rng)
        host.start()
        attached = [d["controller_location"] for d in host.machine("mover01")["drives"]]
        size = host.file(DISK0).stat().st_size
        assert size == (64 * MIB if attached else 64 * MIB + 512)
        assert host.device("scsi-0-7").is_symlink() == bool(attached)
        if not attached:
            _judge(host.file(DISK0), 64 * MIB)
        assert host.file(DISK0).read_bytes()[: 64 * MIB] == payload
        if attached:
            host.ps(DETACH.format(7))


def _toggle_until_killed(host: LabHost, rng: random.Random) -> None:
    """Attaches and detaches without pause, until the kill that a timer deals."""
    timer = threading.Timer(rng.uniform(0.0, 0.08), host.kill)
    timer.start()
    try:
        for _ in range(100):
            host.ps(ATTACH.format(7, DISK0))
            host.ps(DETACH.format(7))
    except OSError:
        timer.join()


def test_a_layer_reads_through_writes_apart_and_merges_down(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    size = 4 * BLOCK + 1024
    base = tmp_path / "base"
    base.write_bytes(rng.randbytes(size))
    original = base.read_bytes()
    LayerDisk.create(tmp_path / "layer", tmp_path / "map", size)
    layer = LayerDisk(ImageDisk(base, size), tmp_path / "layer", tmp_path / "map")
    onlooker = LayerDisk(ImageDisk(base, size), tmp_path / "layer", tmp_path / "map")
    expected = bytearray(original)
    for _ in range(40):
        offset = rng.randrange(size)
        data = rng.randbytes(rng.randrange(1, min(2 * BLOCK, size - offset) + 1))
        layer.write(offset, data)
        expected[offset : offset + len(data)] = data
        if rng.random() < 0.2:
            layer.close()
            layer = LayerDisk(ImageDisk(base, size), tmp_path / "layer", tmp_path / "map")
        assert layer.read(0, size) == bytes(expected)
        assert onlooker.read(0, size) == bytes(expected)
    assert base.read_bytes() == original
    layer.merge()
    layer.close()
    assert base.read_bytes() == bytes(expected)


def test_a_checkpoint_can_be_returned_to_or_kept(host: LabHost) -> None:
    before = host.file(DISK0).read_bytes()
    host.ps("Checkpoint-VM web01 -SnapshotName failback")
    assert all("avhdx" in d["path"] for d in host.machine("web01")["drives"])
    assert host.ps("[string](Get-VMHardDiskDrive web01 | Get-VHD | % { $_.VhdType })") == (
        "Differencing Differencing"
    )
    host.ps("Start-VM web01")
    _wait_for_records(host, 1)
    host.ps("Restore-VMSnapshot -VMName web01 -Name failback -Confirm:$false")
    host.ps("Remove-VMSnapshot -VMName web01 -Name failback")
    _wait_for_merge(host)
    assert host.file(DISK0).read_bytes() == before
    host.ps("Checkpoint-VM web01 -SnapshotName failback")
    host.ps("Start-VM web01")
    _wait_for_records(host, 5)
    host.ps("Get-VMSnapshot web01 | Remove-VMSnapshot")
    host.kill()
    host.start()
    _wait_for_merge(host)
    seen = host.machine("web01")["guest"]["sequence"]
    _wait_for_records(host, seen + 5)
    host.ps("Stop-VM web01 -Force")
    assert host.file(DISK0).read_bytes() != before
    _judge(host.file(DISK0), 64 * MIB)
    assert set(os.listdir(host.file("D:\\VMs\\web01"))) == {"disk0.vhd", "disk1.vhd"}


def test_kills_around_checkpoints_lose_no_acknowledged_record_and_leave_no_layer(
    host: LabHost,
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(5):
        timer = threading.Timer(rng.uniform(0.05, 1.6), host.kill)
        timer.start()
        with contextlib.suppress(OSError, Refused):
            while True:
                host.ps("Checkpoint-VM web01 -SnapshotName one")
                host.ps("Start-VM web01")
                host.ps("Start-Sleep -Milliseconds 500")
                host.ps("Remove-VMSnapshot -VMName web01 -Name one")
                host.ps("Start-Sleep -Milliseconds 100")
                host.ps("Stop-VM web01 -TurnOff")
        timer.join()
        host.start()
        host.ps("if ([string](Get-VM web01).State -eq 'Running') { Stop-VM web01 -TurnOff }")
        host.ps("Get-VMSnapshot web01 | Remove-VMSnapshot")
        _wait_for_merge(host)
        wait_until(lambda: not _layers(host), 15)
    names = set(os.listdir(host.file("D:\\VMs\\web01")))
    assert names == {"disk0.vhd", "disk1.vhd"}
    acknowledged = host.directory / "guest" / "web01" / "ack-onprem.jsonl"
    disks = {n: ImageDisk(host.file(path), size) for n, path, size in _PAYLOADS}
    verdict = verify_acknowledged(disks, [acknowledged])
    assert verdict.whole
    print(f"{verdict.checked} records checked")
    for _, path, size in _PAYLOADS:
        _judge(host.file(path), size)


def _layers(host: LabHost) -> list[str]:
    return [i["path"] for i in host.state()["images"].values() if i["kind"] == "Differencing"]


def _wait_for_records(host: LabHost, count: int) -> None:
    wait_until(lambda: (host.machine("web01")["guest"] or {}).get("sequence", 0) >= count, 15)


def _wait_for_merge(host: LabHost) -> None:
    wait_until(lambda: not any("avhdx" in d["path"] for d in host.machine("web01")["drives"]), 15)
