"""Builds a world into a lab directory: images, both emulators' first states, and the user's files.

Nothing runs yet. Afterwards ``DIR/NAME.yaml`` is the spec, ``DIR/worker.toml`` the workers'
configuration, and ``DIR/world.json`` says what was built; it is written last.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import tls
from lab.azure import seed as azure
from lab.azure.config import Config, Latency
from lab.filesystem import build_data_disk, build_empty_disk, import_disk
from lab.hyperv import seed as hyperv
from lab.hyperv.model import HostState, Store, Switch, Volume
from lab.hyperv.storage import Storage
from lab.stack import ageing
from lab.stack.configuration import PASSWORD_FILE, spec_text, worker_text
from lab.world import GIB, HOST, RESOURCE_GROUP, SUBSCRIPTION, SWITCH, DiskPlan, World

STORAGE_PATH = "D:\\Hyper-V"
_VOLUME_BYTES = 2048 * GIB
_AZURE_SIZE = "Standard_B2s"
ON_PREMISES_ADDRESS = "192.168.10.21"
AZURE_ADDRESS = "10.0.0.4"


def build(directory: Path, world: World, ports: Mapping[str, int]) -> None:
    """Build ``world`` into ``directory``.

    Raises:
        lab.filesystem.ImageError: a disk image cannot be made or used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(directory)
    tls.ensure_certificates(directory)
    images = directory / "images"
    sizes = [
        _build_image(images / f"{disk_id}.raw", world, number)
        for number, disk_id in enumerate(world.disk_ids)
    ]
    password = secrets.token_urlsafe(16)
    _write_secret(directory / PASSWORD_FILE, password)
    _build_host(directory, world, ports, password, images, sizes)
    _grow_apart(directory, world, images)
    _build_azure(directory, world, ports, images)
    shutil.rmtree(images)
    (directory / f"{world.machine}.yaml").write_text(spec_text(world, STORAGE_PATH))
    (directory / "worker.toml").write_text(worker_text(directory, world, ports))
    (directory / "mover-state").mkdir(exist_ok=True)
    world.save(directory)


def _remove_unfinished(directory: Path) -> None:
    """What an interrupted build left behind: a world without ``world.json`` is none."""
    for name in ("images", "azure-disks", "hyperv", "devices", "guest", "mover-state", "chaos"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in ("azure.state.json", "hyperv-state.json", "temporal.db"):
        (directory / name).unlink(missing_ok=True)


def on_premises_path(world: World, disk_id: str) -> str:
    """Where a disk of the original machine lies on the host."""
    suffix = "vhd" if world.generation == 1 else "vhdx"
    return f"{STORAGE_PATH}\\{world.machine}\\{world.machine}-{disk_id}.{suffix}"


def _build_image(image: Path, world: World, number: int) -> int:
    plan = world.disks[number]
    guest_disks = [disk for disk in world.disks if disk.records_bytes]
    index = sum(1 for disk in world.disks[:number] if disk.records_bytes)
    if plan.image is not None:
        return import_disk(Path(plan.image), image)
    if plan.data_bytes:
        build_data_disk(
            image,
            size_bytes=plan.size_bytes,
            data_bytes=plan.data_bytes,
            machine=world.machine,
            disks=len(guest_disks),
            seed=world.seed,
            records_bytes=plan.records_bytes,
            scratch_bytes=plan.scratch_bytes,
        )
    elif plan.records_bytes:
        build_empty_disk(
            image,
            size_bytes=plan.size_bytes,
            machine=world.machine,
            index=index,
            disks=len(guest_disks),
            records_bytes=plan.records_bytes,
            scratch_bytes=plan.scratch_bytes,
        )
    else:
        image.parent.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(plan.size_bytes)
    return plan.size_bytes


def _grow_apart(directory: Path, world: World, images: Path) -> None:
    """Azure went on changing. A user's own image stays what it is; there the copy at home is
    the one that differs, and is put right by the failback."""
    system: DiskPlan = world.disks[0]
    here = images / "os.raw"
    if system.data_bytes:
        ageing.change(here, ageing.user_areas(here), world.stale_blocks, world.seed)
    elif world.original and system.image is not None:
        areas = ageing.data_areas(here, here.stat().st_size)
        there = Storage(directory, Store(directory)).local(on_premises_path(world, "os"))
        ageing.change(there, areas, world.stale_blocks, world.seed)


def _build_host(
    directory: Path,
    world: World,
    ports: Mapping[str, int],
    password: str,
    images: Path,
    sizes: list[int],
) -> None:
    state = HostState(
        name=HOST,
        password=password,
        https_port=ports["hyperv-https"],
        http_port=ports["hyperv-http"],
        admin_port=ports["hyperv-admin"],
        volumes={"C": Volume(size_bytes=256 * GIB), "D": Volume(size_bytes=_VOLUME_BYTES)},
        switches=[Switch(name=SWITCH), Switch(name="Isolated", kind="Private")],
    )
    for volume in state.volumes:
        (directory / "hyperv" / "volumes" / volume).mkdir(parents=True, exist_ok=True)
    (directory / "hyperv" / "volumes" / "D" / "Hyper-V").mkdir(exist_ok=True)
    Store.create(directory, state)
    # Generation 1 takes VHD and VHDX; a mover of generation 2 could not hold a VHD.
    hyperv.create_vm(directory, world.mover, generation=1, state="Running", mover=True)
    if not world.original:
        return
    disks: list[dict[str, Any]] = []
    for number, (disk_id, size) in enumerate(zip(world.disk_ids, sizes, strict=True)):
        # Generation 1 boots from IDE.
        ide = number == 0 and world.generation == 1
        place = {"controller": "IDE 0" if ide else "SCSI 0", "location": number}
        path, image = on_premises_path(world, disk_id), images / f"{disk_id}.raw"
        disks.append({**place, "path": path, "image": image, "size_bytes": size})
    # As the disaster left it: off, and kept from the network.
    hyperv.create_vm(
        directory,
        world.machine,
        generation=world.generation,
        disks=disks,
        adapters=[
            {"switch": "Isolated", "mac": "00155D0A0A15", "addresses": [ON_PREMISES_ADDRESS]}
        ],
        settings={"processors": 2, "memory_bytes": 4 * GIB},
    )


def _build_azure(directory: Path, world: World, ports: Mapping[str, int], images: Path) -> None:
    config = Config(
        arm_port=ports["azure-arm"],
        data_port=ports["azure-data"],
        local_port=ports["azure-local"],
        latency=Latency(**world.latency),
        guest_records_per_second=world.records_per_second,
    )
    config.save(directory)
    disks: list[dict[str, Any]] = []
    for number, disk_id in enumerate(world.disk_ids):
        image = images / f"{disk_id}.raw"
        place = {"os": True} if number == 0 else {"lun": number - 1}
        disks.append({**place, "name": world.azure_disk(disk_id), "image": image, "move": True})
    azure.create_vm(
        directory,
        SUBSCRIPTION,
        RESOURCE_GROUP,
        world.machine,
        disks=disks,
        size=_AZURE_SIZE,
        generation=world.generation,
        nics=[{"name": f"{world.machine}-nic", "address": AZURE_ADDRESS}],
        tags={"service": "shop"},
    )


def _write_secret(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
