"""What a Hyper-V host says of its machines and disks, out of the scripts' JSON into types.

ConvertTo-Json of Windows PowerShell turns an empty list into nothing and wraps some lists into
objects; that is put right here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# What an English host names a machine's first adapter; a German one says Netzwerkkarte.
FIRST_ADAPTER = "Network Adapter"
_HEARTBEAT_SERVICE = "84eaae65-2f2e-45f5-9bb5-0e857dc8eb47"
_DATA_EXCHANGE_SERVICE = "2a34b1c2-fd73-4043-8a5b-dd2159bc743f"


def listed(value: Any) -> list[Any]:
    """A JSON value that is meant to be a list."""
    if value is None:
        return []
    if isinstance(value, dict) and set(value) == {"value", "Count"}:
        return listed(value["value"])
    return value if isinstance(value, list) else [value]


def same_name(left: str, right: str) -> bool:
    """Whether Hyper-V takes two names or paths for the same: it ignores case."""
    return left.casefold() == right.casefold()


@dataclass(frozen=True)
class Drive:
    """A hard disk drive of a machine. `path` is empty for a drive without a disk."""

    path: str
    controller_type: str
    controller_number: int
    location: int
    disk_number: str

    @property
    def controller(self) -> str:
        """As `OnPremisesDisk.controller` has it: `SCSI 0:1`."""
        return f"{self.controller_type} {self.controller_number}:{self.location}"

    @property
    def pass_through(self) -> bool:
        """Whether it is a physical disk of the host."""
        return self.disk_number != ""

    @property
    def order(self) -> tuple[int, int, int]:
        """The order in which the machine's firmware sees its drives: IDE before SCSI."""
        return (
            0 if self.controller_type.upper() == "IDE" else 1,
            self.controller_number,
            self.location,
        )

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Drive:
        """From a script's answer."""
        return cls(
            path=str(value.get("path") or ""),
            controller_type=str(value.get("controller_type") or ""),
            controller_number=int(value.get("controller_number") or 0),
            location=int(value.get("controller_location") or 0),
            disk_number=str(value.get("disk_number") or ""),
        )


@dataclass(frozen=True)
class Adapter:
    """A network adapter. `mac` is twelve hexadecimal digits."""

    id: str
    name: str
    switch: str
    mac: str
    dynamic_mac: bool
    vlan_mode: str
    vlan_id: int
    addresses: tuple[str, ...]

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Adapter:
        """From a script's answer."""
        return cls(
            id=str(value.get("id") or ""),
            name=str(value.get("name") or ""),
            switch=str(value.get("switch") or ""),
            mac=str(value.get("mac") or ""),
            dynamic_mac=bool(value.get("dynamic_mac")),
            vlan_mode=str(value.get("vlan_mode") or ""),
            vlan_id=int(value.get("vlan_id") or 0),
            addresses=tuple(str(a) for a in listed(value.get("addresses")) if a),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a machine."""

    id: str
    name: str

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Checkpoint:
        """From a script's answer."""
        return cls(id=str(value.get("id") or ""), name=str(value.get("name") or ""))


@dataclass(frozen=True)
class Machine:
    """A virtual machine. Short answers leave the later fields empty."""

    id: str
    name: str
    state: str = ""
    generation: int = 0
    notes: str = ""
    path: str = ""
    replication_state: str = ""
    checkpoint_type: str = ""
    automatic_checkpoints: bool = False
    heartbeat: str = ""
    drives: tuple[Drive, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    enabled_services: frozenset[str] = frozenset()

    @property
    def is_off(self) -> bool:
        """Whether it is turned off, and not saved, paused or on its way."""
        return self.state == "Off"

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state == "Running"

    @property
    def has_heartbeat_service(self) -> bool:
        """Whether the host may ask the guest for its heartbeat."""
        return self._service(_HEARTBEAT_SERVICE, "Heartbeat")

    @property
    def has_data_exchange(self) -> bool:
        """Whether the host may give the guest addresses."""
        return self._service(_DATA_EXCHANGE_SERVICE, "Key-Value Pair Exchange")

    def _service(self, identifier: str, name: str) -> bool:
        # The names are translated, the ids are not.
        return any(
            identifier in service.lower() or service == name for service in self.enabled_services
        )

    def adapters_named(self, name: str) -> list[Adapter]:
        """The adapters of this name. The usual name also means the only adapter of a machine,
        because hosts translate it."""
        found = [adapter for adapter in self.adapters if same_name(adapter.name, name)]
        if not found and name == FIRST_ADAPTER and len(self.adapters) == 1:
            return list(self.adapters)
        return found

    def drive_of(self, path: str) -> Drive | None:
        """The drive that holds this file."""
        return next((drive for drive in self.drives if same_name(drive.path, path)), None)

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Machine:
        """From a script's answer."""
        services = [service for service in listed(value.get("services")) if service.get("enabled")]
        return cls(
            id=str(value.get("id") or "").lower(),
            name=str(value.get("name") or ""),
            state=str(value.get("state") or ""),
            generation=int(value.get("generation") or 0),
            notes=str(value.get("notes") or ""),
            path=str(value.get("path") or ""),
            replication_state=str(value.get("replication_state") or ""),
            checkpoint_type=str(value.get("checkpoint_type") or ""),
            automatic_checkpoints=bool(value.get("automatic_checkpoints")),
            heartbeat=str(value.get("heartbeat") or ""),
            drives=tuple(
                sorted((Drive.parse(d) for d in listed(value.get("drives"))), key=_drive_order)
            ),
            checkpoints=tuple(Checkpoint.parse(c) for c in listed(value.get("checkpoints"))),
            adapters=tuple(Adapter.parse(a) for a in listed(value.get("adapters"))),
            enabled_services=frozenset(
                str(word) for service in services for word in (service["id"], service["name"])
            ),
        )


def _drive_order(drive: Drive) -> tuple[int, int, int]:
    return drive.order


@dataclass(frozen=True)
class Overview:
    """Every machine of a host with its drives and checkpoints, and the names of its switches."""

    machines: tuple[Machine, ...]
    switches: tuple[str, ...]

    def named(self, name: str) -> list[Machine]:
        """Machines of this name; Hyper-V allows several."""
        return [machine for machine in self.machines if same_name(machine.name, name)]

    def by_id(self, machine_id: str) -> Machine | None:
        """The machine with this id."""
        return next((m for m in self.machines if m.id == machine_id.lower()), None)

    def has_switch(self, name: str) -> bool:
        """Whether a virtual switch bears this name."""
        return any(same_name(switch, name) for switch in self.switches)

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Overview:
        """From a script's answer."""
        return cls(
            machines=tuple(Machine.parse(machine) for machine in listed(value.get("machines"))),
            switches=tuple(str(switch) for switch in listed(value.get("switches")) if switch),
        )


@dataclass(frozen=True)
class VirtualDisk:
    """What `Get-VHD` says of a file. `error` is its message where it could not be read."""

    path: str
    format: str = ""
    type: str = ""
    size_bytes: int = 0
    file_bytes: int = 0
    logical_sector_bytes: int = 0
    parent: str = ""
    identity: str = ""
    attached: bool = False
    error: str = ""

    @property
    def differencing(self) -> bool:
        """Whether it is only a layer over another disk."""
        return self.type == "Differencing" or bool(self.parent)

    @classmethod
    def parse(cls, value: dict[str, Any]) -> VirtualDisk:
        """From a script's answer."""
        return cls(
            path=str(value.get("path") or ""),
            format=str(value.get("format") or "").upper(),
            type=str(value.get("type") or ""),
            size_bytes=int(value.get("size") or 0),
            file_bytes=int(value.get("file_size") or 0),
            logical_sector_bytes=int(value.get("logical_sector") or 0),
            parent=str(value.get("parent") or ""),
            identity=plain_identity(str(value.get("identifier") or "")),
            attached=bool(value.get("attached")),
            error=str(value.get("error") or ""),
        )


def plain_identity(identifier: str) -> str:
    """A disk identifier in lower case, without dashes and braces, as the mover compares it."""
    return "".join(character for character in identifier.lower() if character not in "-{} ")
