"""Puts machines into the emulated subscription, as if they had been running there all along.

Works on a lab directory whether its emulator runs or not: a running one is asked over its local
port, otherwise the state on disk is changed directly (a lock file tells which).
"""

from __future__ import annotations

import fcntl
import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from lab.azure.blobs import common_properties, new_unique_id, timestamp
from lab.azure.config import Config
from lab.azure.library import Library
from lab.azure.resources import DISKS, INTERFACES, MACHINES, NETWORKS, make_id
from lab.azure.store import State, Store, new_resource
from lab.azure.surroundings import make_network

LOCK_FILE = "azure.lock"
STATE_FILE = "azure.state.json"
DISKS_DIRECTORY = "azure-disks"


class SeedError(ValueError):
    """A machine is described in a way that makes none."""


def create_vm(
    directory: Path,
    subscription: str,
    resource_group: str,
    name: str,
    *,
    disks: list[dict[str, Any]],
    location: str = "westeurope",
    size: str = "Standard_D2s_v5",
    generation: int = 2,
    os_type: str = "Linux",
    nics: list[dict[str, Any]] | None = None,
    tags: dict[str, str] | None = None,
    running: bool = True,
    guest: bool = True,
) -> str:
    """Create a machine with its disks and network interfaces; returns its resource id.

    ``disks``: one dict each with ``os: True`` or ``lun: n``, and ``name``; content from ``image``
    (path of a raw file; copied, or moved with ``move: True``) or ``size_bytes`` of nothing (both:
    the image, grown to the size); ``sku`` (``Premium_LRS``), ``delete_option`` (``Detach``).

    ``nics``: dicts with ``name``, ``address``, and optionally ``network`` (``lab-vnet``),
    ``prefix`` (``10.0.0.0/16``), ``delete_option`` and ``static`` (true). ``None`` makes one with
    the address 10.0.0.4.

    Raises :class:`SeedError` if a machine or disk of that name is there already.

    ``guest=False`` makes a machine that runs but writes nothing.
    """
    spec = {
        "subscription": subscription,
        "resource_group": resource_group,
        "name": name,
        "disks": [{**d, "image": str(d["image"]) if d.get("image") else None} for d in disks],
        "location": location,
        "size": size,
        "generation": generation,
        "os_type": os_type,
        "nics": nics if nics is not None else [{"name": f"{name}-nic", "address": "10.0.0.4"}],
        "tags": tags or {},
        "running": running,
        "guest": guest,
    }
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _ask_emulator(directory, spec)
        store = Store(directory / STATE_FILE)
        with store.changing() as state:
            return apply(state, Library(directory / DISKS_DIRECTORY), spec)


def apply(state: State, library: Library, spec: dict[str, Any]) -> str:
    """Add the machine of ``spec`` to ``state``; returns its id. Inside ``store.changing()``."""
    subscription, group = spec["subscription"], spec["resource_group"]
    machine_id = make_id(subscription, group, MACHINES, spec["name"])
    if machine_id.lower() in state["resources"]:
        raise SeedError(f"there is a machine {spec['name']} in {group} already")
    group_id = f"/subscriptions/{subscription}/resourceGroups/{group}"
    described = {"id": group_id, "name": group, "location": spec["location"]}
    state["groups"].setdefault(group_id.lower(), described)
    storage: dict[str, Any] = {"dataDisks": []}
    for disk in spec["disks"]:
        entry = _add_disk(state, library, spec, disk, machine_id)
        if disk.get("os"):
            entry["osType"] = spec["os_type"]
            storage["osDisk"] = entry
        else:
            storage["dataDisks"].append({"lun": int(disk["lun"]), **entry})
    interfaces = [_add_interface(state, spec, nic, machine_id) for nic in spec["nics"]]
    properties = {
        "vmId": str(uuid.uuid4()),
        "hardwareProfile": {"vmSize": spec["size"]},
        "storageProfile": storage,
        "osProfile": {"computerName": spec["name"], "adminUsername": "azureuser"},
        "networkProfile": {"networkInterfaces": interfaces},
        "provisioningState": "Succeeded",
        "timeCreated": timestamp(),
    }
    machine = new_resource(
        machine_id,
        MACHINES,
        {"location": spec["location"], "tags": spec["tags"], "properties": properties},
        {
            "power": "running" if spec["running"] else "deallocated",
            "power_since": timestamp(),
            "generation": f"V{spec['generation']}",
            "guest": spec["guest"],
            "seeded": True,
        },
    )
    state["resources"][machine_id.lower()] = machine
    return machine_id


def _add_disk(
    state: State, library: Library, spec: dict[str, Any], disk: dict[str, Any], machine_id: str
) -> dict[str, Any]:
    disk_id = make_id(spec["subscription"], spec["resource_group"], DISKS, disk["name"])
    if disk_id.lower() in state["resources"]:
        raise SeedError(f"there is a disk {disk['name']} in {spec['resource_group']} already")
    image = Path(disk["image"]) if disk.get("image") else None
    size = int(disk.get("size_bytes") or (image.stat().st_size if image else 0))
    unique_id = new_unique_id()
    library.create(unique_id, size, image, move=bool(disk.get("move")))
    sku = disk.get("sku", "Premium_LRS")
    properties = common_properties(size, unique_id, {"createOption": "Empty"})
    properties["hyperVGeneration"] = f"V{spec['generation']}"
    if disk.get("os"):
        properties["osType"] = spec["os_type"]
    state["resources"][disk_id.lower()] = new_resource(
        disk_id,
        DISKS,
        {
            "location": spec["location"],
            "tags": dict(disk.get("tags") or {}),
            "sku": {"name": sku, "tier": sku.partition("_")[0]},
            "managedBy": machine_id,
            "properties": properties,
        },
        {"disk": unique_id, "seeded": True},
    )
    return {
        "name": disk["name"],
        "createOption": "Attach",
        "caching": "ReadWrite" if disk.get("os") else "None",
        "diskSizeGB": properties["diskSizeGB"],
        "managedDisk": {"id": disk_id, "storageAccountType": sku},
        "deleteOption": disk.get("delete_option", "Detach"),
    }


def _add_interface(
    state: State, spec: dict[str, Any], nic: dict[str, Any], machine_id: str
) -> dict[str, Any]:
    subscription, group = spec["subscription"], spec["resource_group"]
    network_name = nic.get("network", "lab-vnet")
    network_id = make_id(subscription, group, NETWORKS, network_name)
    if network_id.lower() not in state["resources"]:
        prefix = nic.get("prefix", "10.0.0.0/16")
        network = make_network(subscription, group, spec["location"], network_name, prefix)
        state["resources"][network_id.lower()] = network
    nic_id = make_id(subscription, group, INTERFACES, nic["name"])
    configuration = {
        "id": f"{nic_id}/ipConfigurations/ipconfig1",
        "name": "ipconfig1",
        "properties": {
            "privateIPAddress": nic["address"],
            "privateIPAllocationMethod": "Static" if nic.get("static", True) else "Dynamic",
            "privateIPAddressVersion": "IPv4",
            "primary": True,
            "subnet": {"id": f"{network_id}/subnets/default"},
            "provisioningState": "Succeeded",
        },
    }
    properties = {
        "ipConfigurations": [configuration],
        "dnsSettings": {"dnsServers": [], "appliedDnsServers": []},
        "macAddress": f"00-0D-3A-{uuid.uuid4().hex[:2]}-{uuid.uuid4().hex[:2]}-01".upper(),
        "enableIPForwarding": False,
        "virtualMachine": {"id": machine_id},
        "provisioningState": "Succeeded",
    }
    body = {"location": spec["location"], "tags": {}, "properties": properties}
    interface = new_resource(nic_id, INTERFACES, body, {"seeded": True})
    state["resources"][nic_id.lower()] = interface
    return {
        "id": nic_id,
        "properties": {"primary": True, "deleteOption": nic.get("delete_option", "Detach")},
    }


def _ask_emulator(directory: Path, spec: dict[str, Any]) -> str:
    port = Config.load(directory).local_port
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/lab/vms",
        data=json.dumps(spec).encode(),
        method="POST",
        headers={"Content-Type": "application/json"},
    )
    # Never through a proxy that the environment may name: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as answer:
        return str(json.load(answer)["id"])
