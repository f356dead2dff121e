"""The host's things as the objects that its cmdlets put out, with the real ones' properties."""

import uuid
from datetime import UTC, datetime, timedelta

from lab.hyperv.host import Host
from lab.hyperv.model import Adapter, Checkpoint, Drive, Image, Machine, Switch
from lab.hyperv.powershell.binding import enum
from lab.hyperv.powershell.values import EnumMember, PSObject, Value
from lab.vhd import FOOTER

_PREFIX = "Microsoft.HyperV.PowerShell."
_STATES = {"Running": 2, "Off": 3}
# The ids are the same on every host, the names are in its language.
_SERVICES = {
    "Guest Service Interface": "6C09BB55-D683-4DA0-8931-C9BF705F6480",
    "Heartbeat": "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47",
    "Key-Value Pair Exchange": "2A34B1C2-FD73-4043-8A5B-DD2159BC743F",
    "Shutdown": "9F8233AC-BE49-4C79-8EE3-E7E1985B2077",
    "Time Synchronization": "2497F4DE-E9FA-4204-80E4-4B75C46419C0",
    "VSS": "5CED1297-4598-4915-A5FC-AD21BB4D02A4",
}


def machine_object(host: Host, machine: Machine) -> PSObject:
    """A VirtualMachine, as Get-VM gives it."""
    uptime = datetime.now(UTC) - machine.started if machine.started else timedelta(0)
    running = machine.state == "Running"
    return PSObject(
        f"{_PREFIX}VirtualMachine",
        [
            ("Name", machine.name),
            ("VMName", machine.name),
            ("Id", uuid.UUID(machine.id)),
            ("VMId", uuid.UUID(machine.id)),
            ("State", EnumMember("VMState", machine.state, _STATES[machine.state])),
            ("Status", "Operating normally"),
            ("Generation", machine.generation),
            ("Version", machine.version),
            ("Path", machine.path),
            ("ConfigurationLocation", machine.path),
            ("SnapshotFileLocation", machine.checkpoint_location or machine.path),
            ("CheckpointFileLocation", machine.checkpoint_location or machine.path),
            ("Notes", machine.notes),
            ("CreationTime", machine.created),
            ("Uptime", uptime),
            ("Heartbeat", _heartbeat(host, machine)),
            ("ProcessorCount", machine.processors),
            ("MemoryStartup", machine.memory_bytes),
            ("MemoryAssigned", machine.memory_bytes if running else 0),
            ("DynamicMemoryEnabled", machine.dynamic_memory),
            ("CheckpointType", enum("CheckpointType", machine.checkpoint_type)),
            ("AutomaticCheckpointsEnabled", machine.automatic_checkpoints),
            ("AutomaticStartAction", enum("StartAction", machine.start_action)),
            ("AutomaticStopAction", enum("StopAction", machine.stop_action)),
            ("ReplicationState", _replication("VMReplicationState", machine.replication_state)),
            ("ReplicationMode", _replication("VMReplicationMode", machine.replication_mode)),
            ("ParentSnapshotId", machine.current_checkpoint),
            ("ParentCheckpointId", machine.current_checkpoint),
            ("ComputerName", host.state.name),
            ("IsClustered", False),
            ("HardDrives", [drive_object(machine, drive) for drive in machine.drives]),
            ("NetworkAdapters", [adapter_object(host, machine, a) for a in machine.adapters]),
        ],
        text=f"{_PREFIX}VirtualMachine",
    )


def _heartbeat(host: Host, machine: Machine) -> EnumMember:
    if machine.state == "Off":
        return EnumMember("VMHeartbeatStatus", "Unknown", 0)
    if host.booted(machine):
        return EnumMember("VMHeartbeatStatus", "OkApplicationsUnknown", 3)
    return EnumMember("VMHeartbeatStatus", "NoContact", 6)


def _replication(kind: str, name: str) -> EnumMember:
    return EnumMember(kind, name, 0 if name in ("Disabled", "None") else 1)


def drive_object(machine: Machine, drive: Drive) -> PSObject:
    """A HardDiskDrive."""
    kind, number, location = drive.place
    return PSObject(
        f"{_PREFIX}HardDiskDrive",
        [
            ("VMName", machine.name),
            ("VMId", uuid.UUID(machine.id)),
            ("ControllerType", enum("ControllerType", kind)),
            ("ControllerNumber", number),
            ("ControllerLocation", location),
            ("Path", drive.path),
            ("DiskNumber", drive.disk_number),
            ("Name", f"Hard Drive on {kind} controller number {number} at location {location}"),
        ],
        text=f"{_PREFIX}HardDiskDrive",
    )


def image_object(host: Host, image: Image) -> PSObject:
    """A VirtualHardDisk, as Get-VHD gives it."""
    upper = image.path.upper()
    form = ("VHD", 2) if upper.endswith((".VHD", ".AVHD")) else ("VHDX", 3)
    allocated = host.storage.local(image.path).stat().st_blocks * 512
    file_size = {"Fixed": image.size_bytes + FOOTER}.get(image.kind, allocated)
    in_use = bool(host.users_of(image.path))
    return PSObject(
        "Microsoft.Vhd.PowerShell.VirtualHardDisk",
        [
            ("ComputerName", host.state.name),
            ("Path", image.path),
            ("VhdFormat", EnumMember("VhdFormat", *form)),
            ("VhdType", enum("VhdType", image.kind)),
            ("FileSize", file_size),
            ("Size", image.size_bytes),
            ("MinimumSize", None),
            ("LogicalSectorSize", image.logical_sector),
            ("PhysicalSectorSize", image.physical_sector if form[0] == "VHDX" else 512),
            ("BlockSize", 0 if image.kind == "Fixed" else 33554432),
            ("ParentPath", image.parent or ""),
            ("DiskIdentifier", image.identifier.upper()),
            ("FragmentationPercentage", None),
            ("Alignment", 1),
            ("Attached", in_use),
            ("DiskNumber", None),
        ],
        text="Microsoft.Vhd.PowerShell.VirtualHardDisk",
    )


def adapter_object(host: Host, machine: Machine, adapter: Adapter) -> PSObject:
    """A VMNetworkAdapter."""
    switch = next((s for s in host.state.switches if s.name == adapter.switch), None)
    addresses = host.addresses(machine, adapter)
    return PSObject(
        f"{_PREFIX}VMNetworkAdapter",
        [
            ("Name", adapter.name),
            ("Id", f"Microsoft:{machine.id.upper()}\\{adapter.id.upper()}"),
            ("AdapterId", adapter.id.upper()),
            ("VMName", machine.name),
            ("VMId", uuid.UUID(machine.id)),
            ("SwitchName", adapter.switch or ""),
            ("SwitchId", uuid.UUID(switch.id) if switch else None),
            ("Connected", adapter.switch is not None),
            ("MacAddress", adapter.mac),
            ("DynamicMacAddressEnabled", adapter.dynamic_mac),
            ("IPAddresses", list(addresses)),
            ("IsLegacy", False),
            ("IsManagementOs", False),
            ("Status", ["Ok"] if machine.state == "Running" else []),
            ("VlanSetting", vlan_object(adapter)),
        ],
        text=f"{_PREFIX}VMNetworkAdapter",
    )


def vlan_object(adapter: Adapter) -> PSObject:
    """A VMNetworkAdapterVlanSetting."""
    modes = {"Untagged": 0, "Access": 1, "Trunk": 2}
    return PSObject(
        f"{_PREFIX}VMNetworkAdapterVlanSetting",
        [
            (
                "OperationMode",
                EnumMember("VMNetworkAdapterVlanMode", adapter.vlan_mode, modes[adapter.vlan_mode]),
            ),
            ("AccessVlanId", adapter.vlan_id),
            ("NativeVlanId", 0),
            ("AllowedVlanIdList", []),
            ("ParentAdapter", adapter.name),
        ],
    )


def switch_object(host: Host, switch: Switch) -> PSObject:
    """A VMSwitch."""
    return PSObject(
        f"{_PREFIX}VMSwitch",
        [
            ("Name", switch.name),
            ("Id", uuid.UUID(switch.id)),
            ("SwitchType", enum("VMSwitchType", switch.kind)),
            ("ComputerName", host.state.name),
            ("AllowManagementOS", switch.kind != "Private"),
            ("Notes", ""),
        ],
        text=f"{_PREFIX}VMSwitch",
    )


def checkpoint_object(machine: Machine, checkpoint: Checkpoint) -> PSObject:
    """A VMSnapshot."""
    parent = next((c for c in machine.checkpoints if c.id == checkpoint.parent), None)
    return PSObject(
        f"{_PREFIX}VMSnapshot",
        [
            ("Name", checkpoint.name),
            ("Id", uuid.UUID(checkpoint.id)),
            ("VMName", machine.name),
            ("VMId", uuid.UUID(machine.id)),
            ("SnapshotType", enum("SnapshotType", "Standard")),
            ("CreationTime", checkpoint.created),
            ("ParentSnapshotId", uuid.UUID(parent.id) if parent else None),
            ("ParentSnapshotName", parent.name if parent else None),
            ("State", EnumMember("VMState", "Off", 3)),
            ("HardDrives", [drive_object(machine, drive) for drive in checkpoint.drives]),
        ],
        text=f"{_PREFIX}VMSnapshot",
    )


def service_objects(host: Host, machine: Machine) -> list[PSObject]:
    """The VMIntegrationComponents of a machine."""
    found = []
    for name, service_id in _SERVICES.items():
        enabled = name not in ("Guest Service Interface", *machine.disabled_services)
        if name == "Shutdown":
            enabled = machine.shutdown_service
        status: Value = "OK" if enabled and host.booted(machine) else ""
        if enabled and machine.state == "Running" and not status:
            status = "No Contact"
        found.append(
            PSObject(
                f"{_PREFIX}VMIntegrationComponent",
                [
                    ("VMName", machine.name),
                    ("VMId", uuid.UUID(machine.id)),
                    ("Name", name),
                    ("Id", f"Microsoft:{machine.id.upper()}\\{service_id}"),
                    ("Enabled", enabled),
                    ("OperationalStatus", [status] if status else []),
                    ("PrimaryOperationalStatus", status or None),
                    ("PrimaryStatusDescription", status),
                    ("SecondaryStatusDescription", ""),
                ],
            )
        )
    return found


def firmware_object(machine: Machine) -> PSObject:
    """A VMFirmware; only machines of generation 2 have one."""
    return PSObject(
        f"{_PREFIX}VMFirmware",
        [
            ("VMName", machine.name),
            ("VMId", uuid.UUID(machine.id)),
            ("SecureBoot", enum("OnOffState", "On" if machine.secure_boot else "Off")),
            ("SecureBootTemplate", machine.secure_boot_template),
            ("FirstBootDevice", machine.first_boot),
            ("BootOrder", [drive_object(machine, drive) for drive in machine.drives]),
        ],
    )


def host_object(host: Host) -> PSObject:
    """The VMHost."""
    letter = next(iter(host.state.volumes), "C")
    return PSObject(
        f"{_PREFIX}VMHost",
        [
            ("Name", host.state.name),
            ("ComputerName", host.state.name),
            ("FullyQualifiedDomainName", "lab.local"),
            ("LogicalProcessorCount", 16),
            ("MemoryCapacity", 128 << 30),
            ("VirtualHardDiskPath", f"{letter}:\\VHDs"),
            ("VirtualMachinePath", f"{letter}:\\VMs"),
            ("MacAddressMinimum", "00155D000000"),
            ("MacAddressMaximum", "00155D0000FF"),
            ("VirtualMachineMigrationEnabled", False),
            ("SupportedVmVersions", ["8.0", "9.0", "10.0"]),
        ],
    )
