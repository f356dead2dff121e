"""Fills a lab directory with a Hyper-V host and its machines, before the host is started.

``create_host`` once, ``create_vm`` for each machine; then ``python -m lab.hyperv --dir DIR``. A
machine that is to be the mover gets ``mover=True``: its disks appear below ``DIR/devices/NAME``.
"""

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lab.hyperv.model import Adapter, Drive, HostState, Machine, Store, Switch, Volume
from lab.hyperv.storage import Storage
from lab.tls import CA_FILE, ensure_certificates

SETTINGS_FILE = "hyperv.json"
READY_FILE = "hyperv.ready"


def create_host(
    directory: Path,
    name: str = "HV01",
    *,
    volumes: Mapping[str, int] | None = None,
    switches: Sequence[str] = ("LAN",),
    shells_per_user: int | None = None,
) -> dict[str, Any]:
    """Makes a host with volumes (capacity in bytes by letter) and external switches.

    `shells_per_user` turns WinRM's quota of open shells on; a real host's is 30.

    Its ports are chosen now and stay, so that clients find it again after a restart. Returns what
    ``hyperv.json`` says: endpoint, user, password, CA file, admin address.
    """
    directory = directory.absolute()
    ports = _free_ports(3)
    state = HostState(
        name=name,
        https_port=ports[0],
        http_port=ports[1],
        admin_port=ports[2],
        volumes={
            letter.upper(): Volume(size_bytes=size)
            for letter, size in (volumes or {"D": 1 << 40}).items()
        },
        switches=[Switch(name=switch) for switch in switches],
        shells_per_user=shells_per_user,
    )
    Store.create(directory, state)
    for letter in state.volumes:
        (directory / "hyperv" / "volumes" / letter / "VMs").mkdir(parents=True, exist_ok=True)
    ensure_certificates(directory)
    settings = settings_of(directory, state)
    file = directory / SETTINGS_FILE
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        json.dump(settings, written, indent=1)
    return settings


def settings_of(directory: Path, state: HostState) -> dict[str, Any]:
    """What a client needs to know of a host."""
    return {
        "name": state.name,
        "endpoint": f"https://127.0.0.1:{state.https_port}/wsman",
        "http_endpoint": f"http://127.0.0.1:{state.http_port}/wsman",
        "admin_url": f"http://127.0.0.1:{state.admin_port}",
        "user": state.user,
        "password": state.password,
        "ca_file": str(directory / CA_FILE),
        "devices": str(directory / "devices"),
    }


def create_vm(
    directory: Path,
    name: str,
    *,
    generation: int = 1,
    disks: Sequence[Mapping[str, Any]] = (),
    adapters: Sequence[Mapping[str, Any]] = (),
    state: Literal["Off", "Running"] = "Off",
    notes: str = "",
    mover: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Makes a machine and gives its id. Call it only while the host is not running.

    Args:
        disks: each with ``path`` (on the host, ``.vhd`` or ``.vhdx``), and optionally ``image`` (a
        raw
            image to copy in), ``size_bytes`` (needed without an image), ``controller`` ("IDE 0" or
            "SCSI 0"; SCSI 0 unless given), ``location`` (its place in the list unless given).
        adapters: each with ``name``, ``switch``, and optionally ``addresses``, ``mac`` (static),
            ``vlan``.
        settings: further fields of `lab.hyperv.model.Machine`, such as ``replication_state``.
    """
    store = Store(directory.absolute())
    storage = Storage(directory.absolute(), store)
    drives = []
    for number, disk in enumerate(disks):
        _make_image(storage, disk)
        kind, _, controller = str(disk.get("controller", "SCSI 0")).partition(" ")
        drives.append(
            Drive(
                controller_type="IDE" if kind.upper() == "IDE" else "SCSI",
                controller_number=int(controller or 0),
                controller_location=int(disk.get("location", number)),
                path=str(disk["path"]),
            )
        )
    machine = Machine(
        name=name,
        generation=generation,
        path=f"{next(iter(store.state.volumes))}:\\VMs\\{name}",
        notes=notes,
        state=state,
        started=datetime.now(UTC) if state == "Running" else None,
        mover=mover,
        drives=drives,
        adapters=[_adapter(adapter) for adapter in adapters],
    ).model_copy(update=dict(settings or {}))
    storage.local(machine.path).mkdir(parents=True, exist_ok=True)
    with store.change() as changed:
        changed.machines.append(machine)
    return machine.id


def _make_image(storage: Storage, disk: Mapping[str, Any]) -> None:
    path, image, size = str(disk["path"]), disk.get("image"), disk.get("size_bytes")
    file = storage.local(path)
    if image is not None:
        storage.copy_in(Path(image), path, size)
    elif not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.create(path, int(size or 0), fixed=True, logical_sector=512)


def _adapter(fields: Mapping[str, Any]) -> Adapter:
    adapter = Adapter(
        id=str(uuid.uuid4()),
        name=str(fields.get("name", "Network Adapter")),
        switch=fields.get("switch"),
        leased=list(fields.get("addresses", [])),
    )
    if fields.get("mac"):
        adapter.mac, adapter.dynamic_mac = str(fields["mac"]), False
    if fields.get("vlan"):
        adapter.vlan_mode, adapter.vlan_id = "Access", int(fields["vlan"])
    return adapter


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
