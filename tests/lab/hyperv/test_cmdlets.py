"""Cmdlets: what the product asks of a host, and what a host refuses, word for word by error id."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.hyperv.cmdlets import cim, files, images, machines, network
from lab.hyperv.cmdlets.common import load_syntaxes
from tests.lab.hyperv.harness import LabHost, Refused
from tests.waiting import wait_until

HV = "Microsoft.HyperV.PowerShell.Commands"
VHD = "Microsoft.Vhd.PowerShell.Cmdlets"


def test_every_cmdlet_that_does_something_exists_with_parameter_sets() -> None:
    syntaxes = load_syntaxes()
    for module in (machines, images, network, files, cim):
        for name in module.CMDLETS:
            assert syntaxes[name].sets, name
    assert "Name" in syntaxes["Start-VM"].sets
    assert syntaxes["Stop-VM"].sets["Name"]["Name"].mandatory
    assert syntaxes["New-VHD"].sets["FixedWithoutSource"]["SizeBytes"].position == 1


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("(Get-VMHost).Name", "HV01"),
        ("@(Get-VM | % { $_.Name })", ["web01", "mover01", "gen2"]),
        ("@(Get-VM -Name web* | % { [string]$_.State })", ["Off"]),
        ("(Get-VM -Id (Get-VM web01).Id).Name", "web01"),
        ("(Get-VM web01).State", 3),
        ("@('web01' | Get-VM | % { $_.Generation })", [1]),
        ("@((Get-VM gen2).Generation, (Get-VM gen2).ReplicationState)", [2, 0]),
        ("@(Get-VMSwitch | % { $_.Name })", ["LAN", "DMZ"]),
        ("[string](Get-VMSwitch -Name LAN).SwitchType", "External"),
        ("@(Get-VMHardDiskDrive -VMName web01 | % { $_.ControllerLocation })", [0, 1]),
        ("@(Get-VM web01 | Get-VMHardDiskDrive | Get-VHD | % { $_.Size })", [1 << 26, 1 << 24]),
        ("[string](Get-VHD -Path 'd:/vms/WEB01/disk0.vhd').VhdFormat", "VHD"),
        ("Test-VHD -Path 'D:\\VMs\\web01\\disk0.vhd'", True),
        ("@(Get-VMSnapshot -VMName web01)", []),
        ("(Get-VMNetworkAdapter -VMName web01).SwitchName", "LAN"),
        ("[string](Get-VMNetworkAdapterVlan -VMName web01).OperationMode", "Untagged"),
        ("@(Get-VMIntegrationService -VMName web01 -Name Heart* | % { $_.Enabled })", [True]),
        ("[string](Get-VMFirmware -VMName gen2).SecureBoot", "On"),
        ("(Get-Volume -DriveLetter D).Size", 1 << 30),
        ("(Get-PSDrive D).Root", "D:\\"),
        ("Test-Path 'D:\\VMs\\web01\\disk0.vhd'", True),
        ("Test-Path -LiteralPath 'D:\\VMs\\web01\\disk0.vhd' -PathType Container", False),
        ("Test-Path 'X:\\VMs'", False),
        ("(Get-Item 'D:\\VMs\\web01\\disk1.vhd').Length", (1 << 24) + 512),
        ("@(Get-ChildItem 'D:\\VMs\\web01\\*.vhd' | % { $_.Name })", ["disk0.vhd", "disk1.vhd"]),
        ("(Get-Module -ListAvailable Hyper-V).Name", "Hyper-V"),
        ("$env:COMPUTERNAME", "HV01"),
    ],
)
def test_a_question_is_answered(shared: LabHost, expression: str, expected: object) -> None:
    assert shared.ps(expression) == expected


@pytest.mark.parametrize(
    ("expression", "identifier"),
    [
        ("Get-VM nosuch", f"InvalidParameter,{HV}.GetVM"),
        ("Get-VM -Id ([guid]::NewGuid())", f"InvalidParameter,{HV}.GetVM"),
        ("Get-VMSwitch -Name nosuch", f"InvalidParameter,{HV}.GetVMSwitch"),
        ("Get-VMSnapshot -VMName web01 -Name x", f"InvalidParameter,{HV}.GetVMSnapshot"),
        ("Get-VHD -Path 'D:\\none.vhd'", f"ObjectNotFound,{VHD}.GetVhd"),
        ("Get-VHD -Path 'X:\\none.vhd'", f"ObjectNotFound,{VHD}.GetVhd"),
        ("Get-VMFirmware -VMName web01", f"InvalidParameter,{HV}.GetVMFirmware"),
        ("Start-VM -Name mover01", f"InvalidState,{HV}.StartVM"),
        ("Remove-VM -Name mover01 -Force", f"InvalidState,{HV}.RemoveVM"),
        ("Remove-VM -Name web01", f"InvalidOperation,{HV}.RemoveVM"),
        ("Set-VM -Name mover01 -ProcessorCount 4", f"InvalidState,{HV}.SetVM"),
        (
            "New-VHD -Path 'D:\\VMs\\web01\\disk0.vhd' -SizeBytes 8MB -Fixed",
            f"OperationFailed,{VHD}.NewVhd",
        ),
        ("New-VHD -Path 'D:\\big.vhd' -SizeBytes 5GB -Fixed", f"OperationFailed,{VHD}.NewVhd"),
        ("New-VHD -Path 'D:\\x.vhd' -SizeBytes 1000 -Fixed", f"InvalidParameter,{VHD}.NewVhd"),
        ("New-VHD -Path 'D:\\x.img' -SizeBytes 8MB -Fixed", f"InvalidParameter,{VHD}.NewVhd"),
        ("New-VHD -Path 'D:\\no\\x.vhd' -SizeBytes 8MB -Fixed", f"ObjectNotFound,{VHD}.NewVhd"),
        (
            "Add-VMHardDiskDrive -VMName web01 SCSI 0 0 'D:\\VMs\\web01\\disk1.vhd'",
            f"OperationFailed,{HV}.AddVMHardDiskDrive",
        ),
        (
            "Add-VMHardDiskDrive -VMName gen2 SCSI 0 9 'D:\\VMs\\web01\\disk1.vhd'",
            f"OperationFailed,{HV}.AddVMHardDiskDrive",
        ),
        (
            "Remove-VMHardDiskDrive -VMName web01 SCSI 0 9",
            f"InvalidParameter,{HV}.RemoveVMHardDiskDrive",
        ),
        (
            "Connect-VMNetworkAdapter -VMName web01 -SwitchName none",
            f"InvalidParameter,{HV}.ConnectVMNetworkAdapter",
        ),
        (
            "Add-VMHardDiskDrive -VMName web01 -ControllerType NVME -Path 'D:\\x'",
            f"ParameterArgumentTransformationError,{HV}.AddVMHardDiskDrive",
        ),
        ("Get-VHD -Path a -DiskNumber 1", f"AmbiguousParameterSet,{VHD}.GetVhd"),
        ("Stop-VM", f"MissingMandatoryParameter,{HV}.StopVM"),
        ("Wait-VM -Name web01", "CommandNotFoundException"),
        ("Start-VM -Name web01 -Quickly", f"NamedParameterNotFound,{HV}.StartVM"),
        ("Mount-VHD -Path 'D:\\x.vhd'", f"NotInTheLab,{VHD}.MountVhd"),
        ("Get-Item 'D:\\none'", "PathNotFound,Microsoft.PowerShell.Commands.GetItemCommand"),
        ("Get-CimInstance -ClassName Win32_Toaster", "HRESULT 0x80041010*"),
    ],
)
def test_a_mistake_is_refused_by_its_error_id_and_changes_nothing(
    shared: LabHost, expression: str, identifier: str
) -> None:
    before = shared.state()["machines"]
    with pytest.raises(Refused) as caught:
        shared.ps(expression)
    if identifier.endswith("*"):
        assert caught.value.fqid.startswith(identifier[:-1])
    else:
        assert caught.value.fqid == identifier
    assert shared.state()["machines"] == before


def test_a_machine_is_made_from_nothing_and_removed_without_its_disks(host: LabHost) -> None:
    assert (
        host.ps(
            "[string](New-VM -Name new01 -MemoryStartupBytes 1GB -Generation 2 -NoVHD "
            "-Path 'D:\\VMs' -SwitchName LAN).State"
        )
        == "Off"
    )
    host.ps("New-VHD -Path 'D:\\VMs\\new01\\os.vhdx' -SizeBytes 16MB -Dynamic")
    host.ps("Add-VMHardDiskDrive -VMName new01 -Path 'D:\\VMs\\new01\\os.vhdx'")
    host.ps(
        "Set-VM -Name new01 -ProcessorCount 2 -StaticMemory -AutomaticStartAction Nothing "
        "-Notes 'run 7' -CheckpointType Production -AutomaticCheckpointsEnabled $false"
    )
    host.ps(
        "Set-VMFirmware -VMName new01 -EnableSecureBoot On -SecureBootTemplate "
        "MicrosoftUEFICertificateAuthority -FirstBootDevice (Get-VMHardDiskDrive -VMName new01)"
    )
    host.ps("Set-VMNetworkAdapter -VMName new01 -StaticMacAddress '00-15-5D-01-02-03'")
    host.ps("Set-VMNetworkAdapterVlan -VMName new01 -Access -VlanId 12")
    machine = host.machine("new01")
    assert (machine["notes"], machine["processors"]) == ("run 7", 2)
    assert machine["drives"][0]["path"] == "D:\\VMs\\new01\\os.vhdx"
    assert machine["first_boot"] == "D:\\VMs\\new01\\os.vhdx"
    adapter = machine["adapters"][0]
    assert (adapter["mac"], adapter["vlan_id"], adapter["switch"]) == ("00155D010203", 12, "LAN")
    host.ps("Get-VM new01 | Remove-VM -Force")
    assert host.file("D:\\VMs\\new01\\os.vhdx").exists()
    host.ps("Remove-Item 'D:\\VMs\\new01' -Recurse")
    assert not host.file("D:\\VMs\\new01").exists()


def test_what_if_does_nothing(shared: LabHost) -> None:
    before = shared.state()
    for call in (
        "Start-VM web01 -WhatIf",
        "New-VM -Name x -WhatIf",
        "Remove-Item 'D:\\VMs\\web01\\disk0.vhd' -WhatIf",
        "New-VHD -Path 'D:\\x.vhd' -SizeBytes 8MB -Fixed -WhatIf",
        "Disconnect-VMNetworkAdapter -VMName web01 -WhatIf",
        "Checkpoint-VM web01 -WhatIf",
    ):
        shared.ps(call)
    assert shared.state() == before


def _cim_xml(adapter: str) -> str:
    return (
        '<INSTANCE CLASSNAME="Msvm_GuestNetworkAdapterConfiguration">'
        f'<PROPERTY NAME="InstanceID" TYPE="string"><VALUE>{adapter}</VALUE></PROPERTY>'
        '<PROPERTY NAME="DHCPEnabled" TYPE="boolean"><VALUE>false</VALUE></PROPERTY>'
        '<PROPERTY.ARRAY NAME="IPAddresses" TYPE="string"><VALUE.ARRAY><VALUE>10.1.2.3</VALUE>'
        "</VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>"
    )


def _mof(adapter: str) -> str:
    escaped = adapter.replace("\\", "\\\\")
    return (
        f'instance of Msvm_GuestNetworkAdapterConfiguration {{ InstanceID = "{escaped}"; '
        'DHCPEnabled = FALSE; IPAddresses = {"10.1.2.3"}; Subnets = {"255.255.255.0"}; };'
    )


@pytest.mark.parametrize("form", [_cim_xml, _mof])
def test_a_static_address_reaches_a_running_guest(
    host: LabHost, form: Callable[[str], str]
) -> None:
    instance = host.ps(
        "$vm = Get-CimInstance -Namespace root/virtualization/v2 -ClassName Msvm_ComputerSystem "
        "-Filter \"ElementName='web01'\"; $data = Get-CimAssociatedInstance -InputObject $vm "
        "-ResultClassName Msvm_SyntheticEthernetPortSettingData | ForEach-Object { "
        "Get-CimAssociatedInstance -InputObject $_ -ResultClassName "
        "Msvm_GuestNetworkAdapterConfiguration }; $d = $data.InstanceID"
    )
    assert instance.startswith("Microsoft:GuestNetwork\\")
    script = (
        "$ns = 'root/virtualization/v2'; $s = Get-CimInstance -Namespace $ns -ClassName "
        "Msvm_VirtualSystemManagementService; $vm = Get-CimInstance -Namespace $ns -Query "
        "\"SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'web01'\"; "
        "$r = Invoke-CimMethod -InputObject $s -MethodName SetGuestNetworkAdapterConfiguration "
        f"-Arguments @{{ ComputerSystem = $vm; NetworkConfiguration = @('{form(instance)}') }}; "
        "$j = Get-CimInstance -InputObject $r.Job; $d = @($r.ReturnValue, $j.JobState)"
    )
    assert host.ps(script) == [4096, 10]
    host.ps("Start-VM web01")
    wait_until(lambda: host.ps("[string](Get-VM web01).Heartbeat").startswith("Ok"), 10)
    assert host.ps("@((Get-VMNetworkAdapter -VMName web01).IPAddresses)") == ["192.168.1.10"]
    assert host.ps(script) == [4096, 7]
    assert host.ps("@((Get-VMNetworkAdapter -VMName web01).IPAddresses)") == ["10.1.2.3"]
    host.ps("Disconnect-VMNetworkAdapter -VMName web01")
    assert host.ps("@((Get-VMNetworkAdapter -VMName web01).IPAddresses)") == []


def test_the_committed_syntaxes_are_plain_data() -> None:
    folder = Path(machines.__file__).parents[1]
    for file in ("cmdlets.json", "cmdlets_other.json"):
        for name, sets in json.loads((folder / file).read_text()).items():
            assert "-" in name
            assert sets
