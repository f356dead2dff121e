"""Azure's disks and the host's drives find each other, or say how to help them."""

from __future__ import annotations

from models.machine import CloudDisk
from platforms.hyperv.facts import Drive, VirtualDisk
from platforms.hyperv.pairing import crossed, pair_disks

GIB = 2**30


def _disk(disk_id: str, size: int = GIB) -> CloudDisk:
    return CloudDisk(disk_id=disk_id, name=disk_id, resource_id="", unique_id="", size_bytes=size)


def _drive(place: str, path: str) -> Drive:
    kind, _, rest = place.partition(" ")
    number, _, location = rest.partition(":")
    return Drive(path, kind, int(number), int(location), "")


def _files(sizes: dict[str, int]) -> dict[str, VirtualDisk]:
    return {path.casefold(): VirtualDisk(path, size_bytes=size) for path, size in sizes.items()}


def test_the_boot_drive_is_the_os_disk_and_the_rest_goes_by_lun_and_place() -> None:
    drives = [_drive("SCSI 0:5", "C"), _drive("IDE 0:0", "A"), _drive("SCSI 0:1", "B")]
    paired = pair_disks([_disk("lun7"), _disk("os"), _disk("lun2")], drives, 1, {})
    assert paired.problems == []
    assert [(p.cloud.disk_id, p.drive.path) for p in paired.pairs] == [
        ("os", "A"),
        ("lun2", "B"),
        ("lun7", "C"),
    ]


def test_generation_2_boots_from_the_lowest_scsi_place() -> None:
    drives = [_drive("SCSI 0:1", "B"), _drive("SCSI 0:0", "A")]
    paired = pair_disks([_disk("os"), _disk("lun0")], drives, 2, {})
    assert [(p.cloud.disk_id, p.drive.path) for p in paired.pairs] == [("os", "A"), ("lun0", "B")]


def test_generation_1_without_a_disk_at_its_boot_place_is_a_problem() -> None:
    paired = pair_disks([_disk("os")], [_drive("IDE 1:0", "A")], 1, {})
    assert "boots from" in paired.problems[0]


def test_a_map_wins_over_the_order() -> None:
    drives = [_drive("SCSI 0:0", "D:\\a.vhdx"), _drive("SCSI 0:1", "D:\\b.vhdx")]
    paired = pair_disks([_disk("os"), _disk("lun0")], drives, 2, {"os": "d:\\B.VHDX"})
    assert paired.problems == []
    assert [(p.cloud.disk_id, p.drive.path) for p in paired.pairs] == [
        ("os", "D:\\b.vhdx"),
        ("lun0", "D:\\a.vhdx"),
    ]


def test_a_map_to_what_is_not_there_is_a_problem() -> None:
    drives = [_drive("SCSI 0:0", "D:\\a.vhdx")]
    paired = pair_disks([_disk("os")], drives, 2, {"os": "D:\\z.vhdx", "lun9": "D:\\a.vhdx"})
    assert len(paired.problems) == 2


def test_another_number_of_disks_is_a_problem() -> None:
    paired = pair_disks([_disk("os"), _disk("lun0")], [_drive("SCSI 0:0", "A")], 2, {})
    assert paired.counts_differ
    assert "Azure has 2" in paired.problems[0]


def test_sizes_that_fit_in_another_order_are_a_question() -> None:
    drives = [_drive("SCSI 0:0", "A"), _drive("SCSI 0:1", "B"), _drive("SCSI 0:2", "C")]
    cloud = [_disk("os"), _disk("lun0", 2 * GIB), _disk("lun1", 3 * GIB)]
    files = _files({"A": GIB, "B": 3 * GIB, "C": 2 * GIB})
    lines = crossed(pair_disks(cloud, drives, 2, {}), files)
    assert lines == ["os (1.0 GiB): A", "lun0 (2.0 GiB): C", "lun1 (3.0 GiB): B"]
    mapped = pair_disks(cloud, drives, 2, {"lun0": "C"})
    assert crossed(mapped, files) == []
