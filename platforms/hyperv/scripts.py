"""The PowerShell that runs on a Hyper-V host: one short script per operation, no decisions in it.

A script's body puts its answer into `$data`; `wrap` surrounds it with what turns the answer, or the
error, into one line of JSON behind a mark. Machines are named by id and adapters, drives and
checkpoints by object, never by name, because the cmdlets take names for wildcard patterns. Written
for Windows PowerShell 5.1; enumerations are cast to strings, because JSON would make them numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from platforms.hyperv.literals import number, text, texts

MARK = "FAILBACK-RESULT "

# A command line through cmd.exe ends at 8191 characters; an encoded script takes 8 for every 3 of
# its own. What is longer goes by standard input.
COMMAND_LINE_LIMIT = 2900

_WRAPPER = """$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
[Console]::OutputEncoding = [System.Text.Encoding]::UTF8
$data = $null
try {
%BODY%
$answer = @{ ok = $true; data = $data } | ConvertTo-Json -Depth 6 -Compress
'%MARK%' + $answer
exit 0
} catch {
$failure = @{ ok = $false; type = $_.Exception.GetType().FullName; \
fqid = [string]$_.FullyQualifiedErrorId; hresult = $_.Exception.HResult; \
message = [string]$_.Exception.Message } | ConvertTo-Json -Compress
'%MARK%' + $failure
exit 1
}
"""

# Base64 on the way in: standard input's code page is then of no importance.
BOOTSTRAP = """$lines = @($input)
$encoded = -join $lines
$bytes = [System.Convert]::FromBase64String($encoded)
$script = [System.Text.Encoding]::UTF8.GetString($bytes)
Invoke-Expression $script
"""

_DRIVE = """@{ path = [string]$_.Path; controller_type = [string]$_.ControllerType; \
controller_number = [int]$_.ControllerNumber; controller_location = [int]$_.ControllerLocation; \
disk_number = [string]$_.DiskNumber }"""

_CHECKPOINT = "@{ id = [string]$_.Id; name = [string]$_.Name; type = [string]$_.SnapshotType }"


def wrap(body: str) -> str:
    """The whole script around a body."""
    # The body comes last, so that nothing in it is taken for a place holder.
    return _WRAPPER.replace("%MARK%", MARK).replace("%BODY%", body.strip())


# --- questions --------------------------------------------------------------------------------


def host_facts() -> str:
    """Proves that the Hyper-V module and its service answer."""
    return """$vmhost = Get-VMHost
$data = @{ name = [string]$vmhost.ComputerName; processors = [int]$vmhost.LogicalProcessorCount; \
memory = [int64]$vmhost.MemoryCapacity }"""


def overview() -> str:
    """Every machine with its drives and checkpoints, and every switch."""
    return f"""$machines = @(Get-VM | ForEach-Object {{
$vm = $_
$drives = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object {{ {_DRIVE} }})
$checkpoints = @(Get-VMSnapshot -VM $vm | ForEach-Object {{ {_CHECKPOINT} }})
@{{ id = [string]$vm.Id; name = [string]$vm.Name; state = [string]$vm.State; \
generation = [int]$vm.Generation; notes = [string]$vm.Notes; drives = $drives; \
checkpoints = $checkpoints }}
}})
$switches = @(Get-VMSwitch | ForEach-Object {{ [string]$_.Name }})
$data = @{{ machines = $machines; switches = $switches }}"""


def machine_names() -> str:
    """Ids and names of all machines; quick, because nothing else is asked of them."""
    return """$data = @(Get-VM | ForEach-Object { \
@{ id = [string]$_.Id; name = [string]$_.Name } })"""


def machines(machine_ids: Iterable[str]) -> str:
    """Machines with drives, adapters, checkpoints and integration services, in this order."""
    return f"""$data = @({texts(machine_ids)} | ForEach-Object {{
$vm = Get-VM -Id $_
$drives = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object {{ {_DRIVE} }})
$checkpoints = @(Get-VMSnapshot -VM $vm | ForEach-Object {{ {_CHECKPOINT} }})
$adapters = @(Get-VMNetworkAdapter -VM $vm | ForEach-Object {{
$addresses = @($_.IPAddresses | ForEach-Object {{ [string]$_ }})
@{{ id = [string]$_.Id; name = [string]$_.Name; switch = [string]$_.SwitchName; \
mac = [string]$_.MacAddress; dynamic_mac = [bool]$_.DynamicMacAddressEnabled; \
vlan_mode = [string]$_.VlanSetting.OperationMode; vlan_id = [int]$_.VlanSetting.AccessVlanId; \
addresses = $addresses }}
}})
$services = @(Get-VMIntegrationService -VM $vm | ForEach-Object {{ \
@{{ id = [string]$_.Id; name = [string]$_.Name; enabled = [bool]$_.Enabled }} }})
@{{ id = [string]$vm.Id; name = [string]$vm.Name; state = [string]$vm.State; \
generation = [int]$vm.Generation; notes = [string]$vm.Notes; path = [string]$vm.Path; \
replication_state = [string]$vm.ReplicationState; checkpoint_type = [string]$vm.CheckpointType; \
automatic_checkpoints = [bool]$vm.AutomaticCheckpointsEnabled; \
heartbeat = [string]$vm.Heartbeat; drives = $drives; checkpoints = $checkpoints; \
adapters = $adapters; services = $services }}
}})"""


def virtual_disks(paths: Iterable[str]) -> str:
    """What `Get-VHD` says of each path; a path that cannot be read brings its error along."""
    return f"""$data = @({texts(paths)} | ForEach-Object {{
$path = $_
try {{
$vhd = Get-VHD -Path $path
@{{ path = $path; format = [string]$vhd.VhdFormat; type = [string]$vhd.VhdType; \
size = [int64]$vhd.Size; file_size = [int64]$vhd.FileSize; \
logical_sector = [int]$vhd.LogicalSectorSize; parent = [string]$vhd.ParentPath; \
identifier = [string]$vhd.DiskIdentifier; attached = [bool]$vhd.Attached; error = '' }}
}} catch {{
@{{ path = $path; error = [string]$_.Exception.Message }}
}}
}})"""


def volumes(roots: Iterable[str]) -> str:
    """Free bytes of the volume under each path; a path without one brings its error along."""
    return f"""$data = @({texts(roots)} | ForEach-Object {{
$root = $_
try {{
$volume = Get-Volume -FilePath $root
@{{ root = $root; free = [int64]$volume.SizeRemaining; error = '' }}
}} catch {{
@{{ root = $root; free = 0; error = [string]$_.Exception.Message }}
}}
}})"""


def existing(paths: Iterable[str]) -> str:
    """Which of these files or folders exist."""
    return f"""$data = @({texts(paths)} | ForEach-Object {{ \
@{{ path = $_; exists = [bool](Test-Path -LiteralPath $_) }} }})"""


# --- the machine ------------------------------------------------------------------------------


def new_machine(name: str, generation: int, memory_bytes: int, folder: str) -> str:
    """An empty machine; its id is the answer."""
    return f"""$vm = New-VM -Name {text(name)} -MemoryStartupBytes {number(memory_bytes)} \
-Generation {number(generation)} -NoVHD -Path {text(folder)}
$data = [string]$vm.Id"""


def configure_machine(machine_id: str, processors: int, memory_bytes: int, notes: str) -> str:
    """Fixed size, no surprises: no dynamic memory, no start with the host, no own checkpoints."""
    return f"""{_pick(machine_id)}
Set-VM -VM $vm -ProcessorCount {number(processors)} -StaticMemory \
-MemoryStartupBytes {number(memory_bytes)} -AutomaticStartAction Nothing \
-AutomaticCheckpointsEnabled $false -CheckpointType Standard -Notes {text(notes)}"""


def set_notes(machine_id: str, notes: str) -> str:
    """Replace the machine's notes."""
    return f"{_pick(machine_id)}\nSet-VM -VM $vm -Notes {text(notes)}"


def rename_machine(machine_id: str, name: str) -> str:
    """Give the machine its name."""
    return f"{_pick(machine_id)}\nSet-VM -VM $vm -NewVMName {text(name)}"


def new_disk(folder: str, path: str, size_bytes: int, *, fixed: bool) -> str:
    """A disk of zeros with the sector size Azure's disks have; its folder too where need be."""
    kind = "Fixed" if fixed else "Dynamic"
    # Only .vhdx knows a sector size; .vhd is always 512.
    sectors = " -LogicalSectorSizeBytes 512" if path.lower().endswith(".vhdx") else ""
    return f"""if (-not (Test-Path -LiteralPath {text(folder)})) {{
New-Item -ItemType Directory -Path {text(folder)} | Out-Null
}}
New-VHD -Path {text(path)} -SizeBytes {number(size_bytes)} -{kind}{sectors} | Out-Null"""


def set_firmware(machine_id: str, location: int, template: str | None) -> str:
    """Boot from the drive at SCSI 0:`location`; with secure boot where a template is given."""
    secure = f"On -SecureBootTemplate {text(template)}" if template else "Off"
    return f"""{_pick(machine_id)}
$drive = Get-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 \
-ControllerLocation {number(location)}
Set-VMFirmware -VM $vm -FirstBootDevice $drive -EnableSecureBoot {secure}"""


def add_adapter(machine_id: str, name: str) -> str:
    """One more network adapter, not connected."""
    return f"{_pick(machine_id)}\nAdd-VMNetworkAdapter -VM $vm -Name {text(name)}"


def remove_machine(machine_id: str) -> str:
    """Remove the machine; Hyper-V leaves its disk files alone."""
    return f"{_pick(machine_id)}\nRemove-VM -VM $vm -Force -Confirm:$false"


def remove_files(paths: Iterable[str]) -> str:
    """Delete exactly these files; one that is gone is fine."""
    return f"""{texts(paths)} | ForEach-Object {{
if (Test-Path -LiteralPath $_) {{ Remove-Item -LiteralPath $_ -Force -Confirm:$false }}
}}"""


# --- drives -----------------------------------------------------------------------------------


def add_drive(
    machine_id: str, controller_type: str, controller_number: int, location: int, path: str
) -> str:
    """Attach a disk file at this very place."""
    return f"""{_pick(machine_id)}
Add-VMHardDiskDrive -VM $vm -ControllerType {controller_type} \
-ControllerNumber {number(controller_number)} -ControllerLocation {number(location)} \
-Path {text(path)}"""


def remove_drives(machine_id: str, paths: Iterable[str]) -> str:
    """Detach the drives that hold these files, wherever they are; none is fine."""
    return f"""{_pick(machine_id)}
$wanted = {texts(paths)}
$drives = @(Get-VMHardDiskDrive -VM $vm | Where-Object {{ $wanted -contains $_.Path }})
$drives | ForEach-Object {{ Remove-VMHardDiskDrive -VMHardDiskDrive $_ -Confirm:$false }}
$data = $drives.Count"""


# --- power ------------------------------------------------------------------------------------


def start_machine(machine_id: str) -> str:
    """Start it; its state afterwards is the answer."""
    return f"{_pick(machine_id)}\nStart-VM -VM $vm -Confirm:$false\n{_state(machine_id)}"


def turn_off_machine(machine_id: str) -> str:
    """Pull the plug; its state afterwards is the answer."""
    return f"""{_pick(machine_id)}
Stop-VM -VM $vm -TurnOff -Force -Confirm:$false
{_state(machine_id)}"""


# --- checkpoints ------------------------------------------------------------------------------


def take_checkpoint(machine_id: str, name: str) -> str:
    """Checkpoint the machine under this name."""
    return f"{_pick(machine_id)}\nCheckpoint-VM -VM $vm -SnapshotName {text(name)} -Confirm:$false"


def restore_checkpoint(machine_id: str, checkpoint_id: str) -> str:
    """Return to a checkpoint; it stays in the list."""
    return f"""{_pick_checkpoint(machine_id, checkpoint_id)}
Restore-VMSnapshot -VMSnapshot $checkpoint -Confirm:$false"""


def remove_checkpoint(machine_id: str, checkpoint_id: str) -> str:
    """Remove a checkpoint; Hyper-V merges in the background."""
    return f"""{_pick_checkpoint(machine_id, checkpoint_id)}
Remove-VMSnapshot -VMSnapshot $checkpoint -Confirm:$false"""


# --- network ----------------------------------------------------------------------------------


def connect_adapter(machine_id: str, adapter_id: str, switch: str | None) -> str:
    """Connect to the switch, or to none."""
    verb = (
        f"Connect-VMNetworkAdapter -VMNetworkAdapter $adapter -SwitchName {text(switch)}"
        if switch
        else "Disconnect-VMNetworkAdapter -VMNetworkAdapter $adapter"
    )
    return f"{_pick_adapter(machine_id, adapter_id)}\n{verb}"


def set_vlan(machine_id: str, adapter_id: str, vlan_id: int | None) -> str:
    """Access VLAN, or untagged."""
    mode = f"-Access -VlanId {number(vlan_id)}" if vlan_id is not None else "-Untagged"
    return f"""{_pick_adapter(machine_id, adapter_id)}
Set-VMNetworkAdapterVlan -VMNetworkAdapter $adapter {mode}"""


def set_mac(machine_id: str, adapter_id: str, mac: str | None) -> str:
    """Static MAC address in twelve digits, or one that the host chooses."""
    mode = f"-StaticMacAddress {text(mac)}" if mac else "-DynamicMacAddress"
    return f"""{_pick_adapter(machine_id, adapter_id)}
Set-VMNetworkAdapter -VMNetworkAdapter $adapter {mode}"""


_NAMESPACE = "root/virtualization/v2"


def guest_network_configurations() -> str:
    """Instance ids of every adapter's guest configuration; they hold the adapter's own id."""
    return f"""$data = @(Get-CimInstance -Namespace '{_NAMESPACE}' \
-ClassName 'Msvm_GuestNetworkAdapterConfiguration' | ForEach-Object {{ [string]$_.InstanceID }})"""


def set_guest_network(machine_id: str, configurations: Sequence[str]) -> str:
    """Hand embedded instances (CIM-XML) to the guest; the answer is the method's return value."""
    return f"""$service = Get-CimInstance -Namespace '{_NAMESPACE}' \
-ClassName 'Msvm_VirtualSystemManagementService'
$system = Get-CimInstance -Namespace '{_NAMESPACE}' -ClassName 'Msvm_ComputerSystem' \
-Filter {text(f"Name = '{machine_id.upper()}'")}
$result = Invoke-CimMethod -InputObject $service \
-MethodName 'SetGuestNetworkAdapterConfiguration' -Arguments @{{ ComputerSystem = $system; \
NetworkConfiguration = {texts(configurations)} }}
$data = [int64]$result.ReturnValue"""


def _pick(machine_id: str) -> str:
    return f"$vm = Get-VM -Id {text(machine_id)}"


def _state(machine_id: str) -> str:
    return f"$data = [string](Get-VM -Id {text(machine_id)}).State"


def _pick_checkpoint(machine_id: str, checkpoint_id: str) -> str:
    return f"""{_pick(machine_id)}
$checkpoint = Get-VMSnapshot -VM $vm | Where-Object {{ [string]$_.Id -eq {text(checkpoint_id)} }}"""


def _pick_adapter(machine_id: str, adapter_id: str) -> str:
    return f"""{_pick(machine_id)}
$adapter = Get-VMNetworkAdapter -VM $vm | Where-Object {{ [string]$_.Id -eq {text(adapter_id)} }}"""
