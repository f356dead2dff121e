"""Worlds are built whole: real images, both sides' first states, and files the product accepts."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from lab.filesystem import build_empty_disk
from lab.hyperv.model import Store
from lab.stack import Lab, LabError
from lab.vhd import pack_footer
from lab.world import MIB, World
from models.spec import Location, parse_spec
from tests.lab.images import file_system_is_clean
from worker.settings import load_settings


def test_both_sides_hold_whole_file_systems_that_differ(tmp_path: Path) -> None:
    lab = Lab(tmp_path, World.small(data_disks=2))
    assert file_system_is_clean(lab.azure_disk("os").path)
    assert file_system_is_clean(lab.onprem_disk("os").path)
    assert set(lab.differences()) == {"os"}
    assert [lab.azure_disk(one).size for one in lab.world.disk_ids] == [64 * MIB] + 2 * [32 * MIB]
    assert lab.leftovers() == {}


def test_the_originals_disks_are_fixed_vhds_by_qemus_judgement(tmp_path: Path) -> None:
    program = shutil.which("qemu-img")
    lab = Lab(tmp_path, World.small())
    disk = lab.onprem_disk("os")
    assert disk.path.suffix == ".vhd"
    assert disk.path.stat().st_size == disk.size + 512
    assert disk.path.read_bytes()[-512:].startswith(b"conectix")
    if program is not None:
        done = subprocess.run(
            [program, "info", "-f", "vpc", "--output=json", disk.path], capture_output=True
        )
        assert f'"virtual-size": {disk.size}'.encode() in done.stdout


def test_the_product_reads_the_files_that_a_world_writes(tmp_path: Path) -> None:
    lab = Lab(tmp_path, World.small(options={"shutdown": {"force": True}}, static_address=True))
    spec = parse_spec(lab.spec_file.read_text())
    assert spec.shutdown.force
    assert spec.shutdown.graceful_timeout == 30
    assert spec.on_premises.location is Location.ORIGINAL
    assert spec.on_premises.adapters[0].static is not None
    settings = load_settings(lab.config_file)
    assert settings.hyperv["hv01"].password()
    assert settings.azure.base_url.endswith(str(lab.ports["azure-arm"]))


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    lab = Lab(tmp_path, World.small())
    assert (tmp_path / "hv01.password").stat().st_mode & 0o077 == 0
    password = (tmp_path / "hv01.password").read_text()
    assert password not in lab.config_file.read_text()


def test_a_machine_that_is_gone_on_premises_is_to_be_created(tmp_path: Path) -> None:
    lab = Lab(tmp_path, World.small(original=False))
    assert [machine.name for machine in Store(tmp_path).state.machines] == ["mover01"]
    spec = parse_spec(lab.spec_file.read_text())
    assert spec.on_premises.location is Location.ALTERNATE
    assert spec.on_premises.creates


def test_a_machine_of_generation_2_has_vhdx_disks_on_scsi(tmp_path: Path) -> None:
    Lab(tmp_path, World.small(generation=2))
    machine = next(m for m in Store(tmp_path).state.machines if m.name == "web01")
    assert machine.generation == 2
    assert {drive.controller_type for drive in machine.drives} == {"SCSI"}
    assert all(drive.path.endswith(".vhdx") for drive in machine.drives)


@pytest.mark.parametrize("as_vhd", [False, True])
def test_a_users_image_is_copied_and_not_changed(tmp_path: Path, as_vhd: bool) -> None:
    image = tmp_path / "mine.img"
    build_empty_disk(image, size_bytes=8 * MIB, machine="other", disks=2, records_bytes=2 * MIB)
    raw = image.read_bytes()
    if as_vhd:
        with image.open("ab") as file:
            file.write(pack_footer(8 * MIB, uuid.uuid4()))
    before, inode = hashlib.sha256(image.read_bytes()).digest(), os.stat(image).st_ino
    lab = Lab(tmp_path / "lab", World.demo(disk=image))
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert os.stat(image).st_ino == inode
    assert lab.azure_disk("os").path.read_bytes() == raw
    assert "os" in lab.differences()


def test_the_same_world_is_built_twice_alike(tmp_path: Path) -> None:
    first, second = (Lab(tmp_path / name, World.small()) for name in ("a", "b"))
    for disk_id in first.world.disk_ids:
        # The file system's own identifiers and times differ; the guest's disk is the same.
        if disk_id != "os":
            assert first.azure_disk_digest(disk_id) == second.azure_disk_digest(disk_id)


def test_a_lab_keeps_its_world(tmp_path: Path) -> None:
    made = Lab(tmp_path, World.small())
    assert Lab(tmp_path).world == made.world
    with pytest.raises(LabError, match="another world"):
        Lab(tmp_path, World.small(generation=2))


def test_a_build_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    Lab(tmp_path, World.small())
    (tmp_path / "world.json").unlink()
    lab = Lab(tmp_path, World.small(data_disks=2))
    assert [machine.name for machine in Store(tmp_path).state.machines] == ["mover01", "web01"]
    assert set(lab.differences()) == {"os"}


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"sea")
    with pytest.raises(LabError, match="no lab"):
        Lab(tmp_path, World.small())
    assert (tmp_path / "images" / "holiday.jpg").exists()
    assert os.listdir(tmp_path) == ["images"]
