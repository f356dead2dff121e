"""Reading the Azure machine: the virtual machine, its disks, interfaces and size, into the plain
model that the run keeps. What cannot be read is left out and said, never guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from azure.mgmt.compute import models as azure_models

from models.errors import AzureThrottled, AzureUnavailable, FailbackError
from models.machine import CloudAdapter, CloudDisk, CloudMachine
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.errors import guarded
from platforms.azure.names import parse_resource_id
from platforms.azure.power import power_of
from platforms.azure.waiting import pause
from platforms.base import Call

Result = TypeVar("Result")

_GIB = 2**30
# Preflight asks dozens of questions; one throttled answer must not make a check fail.
_READ_ATTEMPTS = 3
_LONGEST_READ_WAIT_SECONDS = 60.0


class MachineReader:
    """Reads with a few tries."""

    def __init__(self, clients: Clients, source: AzureMachineRef, call: Call) -> None:
        self._clients = clients
        self._source = source
        self._call = call
        self._compute = clients.compute(source.subscription_id)
        self._deadline = time.monotonic() + _LONGEST_READ_WAIT_SECONDS

    def read(self, doing: str, operation: Callable[[], Result]) -> Result:
        """Call `operation`, again where Azure is busy, all reads together within a minute of
        waiting."""
        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                return guarded(doing, operation)
            except (AzureThrottled, AzureUnavailable) as failure:
                wait = vars(failure).get("retry_after_seconds") or float(attempt)
                if attempt == _READ_ATTEMPTS or time.monotonic() + wait > self._deadline:
                    raise
            pause(self._call, wait, "Azure")
        raise AssertionError("unreachable: the last attempt returns or raises")

    def virtual_machine(self) -> azure_models.VirtualMachine:
        """The virtual machine with its instance view."""
        source = self._source
        return self.read(
            f"Reading virtual machine {source.vm!r} in {source.resource_group!r}",
            lambda: self._compute.virtual_machines.get(
                source.resource_group, source.vm, expand="instanceView"
            ),
        )

    def disk(self, resource_id: str) -> azure_models.Disk:
        """One managed disk."""
        where = parse_resource_id(resource_id)
        disks = self._clients.compute(where.subscription_id).disks
        return self.read(
            f"Reading disk {where.name!r}", lambda: disks.get(where.resource_group, where.name)
        )

    def adapter(self, reference: Any) -> CloudAdapter:
        """One network interface with its subnet and private addresses."""
        where = parse_resource_id(reference.id)
        interfaces = self._clients.network(where.subscription_id).network_interfaces
        found = self.read(
            f"Reading network interface {where.name!r}",
            lambda: interfaces.get(where.resource_group, where.name),
        )
        configurations = list(found.ip_configurations or [])
        subnets = [c.subnet.id for c in configurations if c.subnet is not None and c.subnet.id]
        return CloudAdapter(
            resource_id=reference.id,
            subnet=subnets[0].rsplit("/", 1)[-1] if subnets else "",
            addresses=[c.private_ip_address for c in configurations if c.private_ip_address],
            delete_option=option_of(reference.delete_option),
        )

    def size(self, location: str, size: str) -> tuple[int, int] | None:
        """Processors and bytes of memory of a size; `None` if Azure does not list it there."""
        key = (self._source.subscription_id, location)
        if key not in self._clients.sizes:
            skus = self.read(
                f"Listing virtual machine sizes in {location!r}",
                lambda: list(self._compute.resource_skus.list(filter=f"location eq '{location}'")),
            )
            self._clients.sizes[key] = dict(_size_of(sku) for sku in skus if _is_machine(sku))
        return self._clients.sizes[key].get(size.lower())


@dataclass
class FoundDisk:
    """A disk as the machine refers to it, and as it is, unless `error` says why not."""

    disk_id: str
    name: str
    attachment: Any
    disk: azure_models.Disk | None = None
    error: str = ""

    @property
    def resource_id(self) -> str:
        """The managed disk's id; empty for a disk that is none."""
        managed = self.attachment.managed_disk
        return str(managed.id or "") if managed is not None else ""

    def described(self) -> CloudDisk:
        """The disk for the run; without unique id where it could not be read."""
        size = int(self.attachment.disk_size_gb or 0) * _GIB
        if self.disk is not None:
            size = int(self.disk.disk_size_bytes or 0) or size
        return CloudDisk(
            disk_id=self.disk_id,
            name=self.name,
            resource_id=self.resource_id,
            unique_id=str((self.disk.unique_id if self.disk is not None else "") or ""),
            size_bytes=size,
            delete_option=option_of(self.attachment.delete_option),
        )


@dataclass
class FoundMachine:
    """Everything that was read of one machine."""

    virtual_machine: azure_models.VirtualMachine
    disks: list[FoundDisk]
    adapters: list[CloudAdapter] = field(default_factory=list)
    adapter_errors: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    size_error: str = ""

    @property
    def power_state(self) -> str:
        """As the instance view says."""
        view = self.virtual_machine.instance_view
        return power_of(view.statuses if view is not None else [])

    def described(self, source: AzureMachineRef) -> CloudMachine:
        """The machine for the run."""
        machine = self.virtual_machine
        hardware = machine.hardware_profile
        return CloudMachine(
            name=str(machine.name or source.vm),
            resource_id=str(machine.id or ""),
            location=str(machine.location or ""),
            vm_id=str(machine.vm_id or ""),
            generation=self._generation(),
            os_type=self._os_type(),
            size=plain(hardware.vm_size) if hardware is not None else "",
            processors=self.size[0] if self.size else None,
            memory_bytes=self.size[1] if self.size else None,
            power_state=self.power_state,
            disks=[disk.described() for disk in self.disks],
            adapters=self.adapters,
        )

    def _generation(self) -> int:
        """From the instance view of a machine that runs, else from its OS disk; 1 if neither says,
        as Azure itself takes it."""
        view = self.virtual_machine.instance_view
        said = plain(view.hyper_v_generation) if view is not None else ""
        for found in self.disks:
            if not said and found.disk_id == "os" and found.disk is not None:
                said = plain(found.disk.hyper_v_generation)
        return 2 if said.upper() == "V2" else 1

    def _os_type(self) -> str:
        for found in self.disks:
            if found.disk_id == "os":
                return plain(found.attachment.os_type)
        return ""


def read_machine(reader: MachineReader, machine: azure_models.VirtualMachine) -> FoundMachine:
    """Everything else there is to read of a machine whose virtual machine has been read."""
    found = FoundMachine(machine, [_read_disk(reader, disk) for disk in _attachments(machine)])
    profile = machine.network_profile
    for reference in list(profile.network_interfaces or []) if profile is not None else []:
        try:
            found.adapters.append(reader.adapter(reference))
        except (FailbackError, ValueError) as error:
            found.adapter_errors.append(str(error))
            found.adapters.append(
                CloudAdapter(
                    resource_id=str(reference.id or ""),
                    delete_option=option_of(reference.delete_option),
                )
            )
    hardware = machine.hardware_profile
    size = plain(hardware.vm_size) if hardware is not None else ""
    try:
        found.size = reader.size(str(machine.location or ""), size)
        if found.size is None:
            found.size_error = f"Azure does not list size {size!r} in {machine.location!r}"
    except FailbackError as error:
        found.size_error = error.message
    return found


def plain(value: object) -> str:
    """The text of an SDK enumeration or string; empty for none."""
    return str(getattr(value, "value", value) or "")


def option_of(value: object) -> str:
    """A delete option; Azure keeps what names none."""
    return plain(value) or "Detach"


def _is_machine(sku: azure_models.ResourceSku) -> bool:
    return (sku.resource_type or "").lower() == "virtualmachines" and bool(sku.name)


def _size_of(sku: azure_models.ResourceSku) -> tuple[str, tuple[int, int]]:
    has = {item.name: item.value for item in sku.capabilities or []}
    sizes = _capability(has.get("vCPUs"), 1), _capability(has.get("MemoryGB"), _GIB)
    return str(sku.name).lower(), sizes


def _capability(value: str | None, unit: int) -> int:
    return int(float(value or 0) * unit)


def _attachments(machine: azure_models.VirtualMachine) -> list[FoundDisk]:
    profile = machine.storage_profile
    if profile is None:
        return []
    found: list[FoundDisk] = []
    if profile.os_disk is not None:
        found.append(FoundDisk("os", str(profile.os_disk.name or ""), profile.os_disk))
    for disk in sorted(profile.data_disks or [], key=lambda item: int(item.lun)):
        found.append(FoundDisk(f"lun{disk.lun}", str(disk.name or ""), disk))
    return found


def _read_disk(reader: MachineReader, found: FoundDisk) -> FoundDisk:
    if not found.resource_id:
        found.error = "it is not a managed disk"
        return found
    try:
        found.disk = reader.disk(found.resource_id)
    except (FailbackError, ValueError) as error:
        found.error = str(error)
    return found
