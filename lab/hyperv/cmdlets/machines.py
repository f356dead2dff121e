"""Cmdlets for machines, their checkpoints, firmware and integration services, and the host."""

from collections.abc import Iterable, Mapping
from typing import Any

from lab.hyperv.cmdlets.common import (
    Implementation,
    confirm,
    machines,
    matches,
    passed_through,
    what_if,
)
from lab.hyperv.cmdlets.objects import (
    checkpoint_object,
    firmware_object,
    host_object,
    machine_object,
    service_objects,
)
from lab.hyperv.host import Host, HostError
from lab.hyperv.model import Adapter, Checkpoint, Machine
from lab.hyperv.powershell.session import Invocation
from lab.hyperv.powershell.values import CmdletError, Value, as_list, to_string


def _get_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.given("Id"):
        wanted = to_string(invocation.get("Id"))
        found = [machine for machine in host.state.machines if machine.id == wanted]
        if not found:
            raise CmdletError(
                f'Hyper-V was unable to find a virtual machine with id "{wanted}".',
                identifier="InvalidParameter",
                target=wanted,
            )
    elif invocation.given("Name"):
        found = machines(host, invocation)
    else:
        found = host.state.machines
    return [machine_object(host, machine) for machine in found]


def _new_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    name = invocation.get("Name", "New Virtual Machine")
    switch = invocation.get("SwitchName")
    if switch is not None and switch not in [one.name for one in host.state.switches]:
        raise HostError(
            "InvalidParameter", f'Hyper-V was unable to find a virtual switch with name "{switch}".'
        )
    generation = invocation.get("Generation", 1)
    if generation not in (1, 2):
        raise HostError("InvalidParameter", "The generation of a machine is 1 or 2.")
    if invocation.set_name != "No VHD":
        raise HostError("InvalidParameter", "The lab makes machines with -NoVHD only.")
    folder = invocation.get("Path") or "D:\\VMs"
    if what_if(invocation):
        return []
    host.storage.local(f"{folder}\\{name}").mkdir(parents=True, exist_ok=True)
    machine = Machine(
        name=name,
        generation=generation,
        path=f"{folder}\\{name}",
        memory_bytes=invocation.get("MemoryStartupBytes", 512 << 20),
        adapters=[Adapter(switch=switch)],
    )
    with host.store.change() as state:
        state.machines.append(machine)
    return [machine_object(host, machine)]


_SETTINGS: dict[str, tuple[str, type]] = {
    "Notes": ("notes", str),
    "ProcessorCount": ("processors", int),
    "MemoryStartupBytes": ("memory_bytes", int),
    "AutomaticStartAction": ("start_action", str),
    "AutomaticStopAction": ("stop_action", str),
    "CheckpointType": ("checkpoint_type", str),
    "AutomaticCheckpointsEnabled": ("automatic_checkpoints", bool),
    "SnapshotFileLocation": ("checkpoint_location", str),
    "NewVMName": ("name", str),
}
_ONLY_WHEN_OFF = ("ProcessorCount", "MemoryStartupBytes", "StaticMemory", "DynamicMemory")


def _set_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = machines(host, invocation)
    for machine in found:
        if machine.state == "Running" and any(invocation.given(name) for name in _ONLY_WHEN_OFF):
            raise HostError(
                "InvalidState",
                f"'{machine.name}': the operation cannot be performed while the virtual machine is "
                "in its current state.",
            )
        changes: dict[str, Any] = {
            attribute: kind(value) if kind is not str else to_string(value)
            for name, (attribute, kind) in _SETTINGS.items()
            if (value := invocation.get(name)) is not None
        }
        if invocation.get("StaticMemory") or invocation.get("DynamicMemory"):
            changes["dynamic_memory"] = bool(invocation.get("DynamicMemory"))
        if not what_if(invocation):
            _apply(host, machine, changes)
    return passed_through(invocation, (machine_object(host, m) for m in _again(host, found)))


def _apply(host: Host, machine: Machine, changes: Mapping[str, Any]) -> None:
    with host.changing(machine.id) as changed:
        for attribute, value in changes.items():
            setattr(changed, attribute, value)


def _again(host: Host, found: list[Machine]) -> list[Machine]:
    return [host.machine(machine.id) for machine in found]


def _set_processor(host: Host, invocation: Invocation) -> Iterable[Value]:
    for machine in machines(host, invocation, "VMName"):
        _apply(host, machine, {"processors": invocation.get("Count", machine.processors)})
    return []


def _rename_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = machines(host, invocation)
    for machine in found:
        _apply(host, machine, {"name": invocation.get("NewName")})
    return passed_through(invocation, (machine_object(host, m) for m in _again(host, found)))


def _start_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = machines(host, invocation)
    for machine in found:
        if machine.state == "Running":
            raise HostError(
                "InvalidState",
                f"'{machine.name}' failed to start. The operation cannot be performed while the "
                "virtual machine is in its current state.",
            )
        if not what_if(invocation):
            host.start(machine, invocation.interpreter.session.misbehaviour)
    return passed_through(invocation, (machine_object(host, m) for m in _again(host, found)))


def _stop_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = machines(host, invocation)
    misbehaviour = invocation.interpreter.session.misbehaviour
    refused = misbehaviour is not None and misbehaviour.kind == "refuse_shutdown"
    for machine in found:
        if invocation.get("Save"):
            raise HostError("OperationFailed", "The lab's machines cannot be saved.")
        if what_if(invocation):
            continue
        if invocation.get("TurnOff"):
            host.stop(machine, graceful=False)
            continue
        if not invocation.get("Force") and not host.booted(machine):
            confirm(invocation, f"'{machine.name}' does not answer; turning it off may lose data")
        host.stop(machine, graceful=True, refused=refused)
    return passed_through(invocation, (machine_object(host, m) for m in _again(host, found)))


def _remove_vm(host: Host, invocation: Invocation) -> Iterable[Value]:
    confirm(invocation, "Remove-VM asks before it removes a machine")
    for machine in machines(host, invocation):
        if machine.state == "Running":
            raise HostError(
                "InvalidState",
                f"'{machine.name}': the virtual machine cannot be deleted while it is running.",
            )
        if not what_if(invocation):
            with host.store.change() as state:
                state.machines = [one for one in state.machines if one.id != machine.id]
    return []


def _get_host(host: Host, invocation: Invocation) -> Iterable[Value]:
    return [host_object(host)]


def _get_checkpoints(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.given("Id"):
        wanted = to_string(invocation.get("Id"))
        chosen = [(m, c) for m in host.state.machines for c in m.checkpoints if c.id == wanted]
    else:
        chosen = [(m, c) for m in machines(host, invocation, "VMName") for c in m.checkpoints]
        name = invocation.get("Name")
        if name is not None:
            chosen = [(m, c) for m, c in chosen if matches(c.name, name)]
            if not chosen and "*" not in name:
                raise _checkpoint_not_found(name)
    return [checkpoint_object(machine, checkpoint) for machine, checkpoint in chosen]


def _checkpoint_not_found(name: str) -> CmdletError:
    return CmdletError(
        f'Hyper-V was unable to find a checkpoint with name "{name}".',
        identifier="InvalidParameter",
        target=name,
    )


def _take_checkpoint(host: Host, invocation: Invocation) -> Iterable[Value]:
    taken = []
    for machine in machines(host, invocation):
        if machine.checkpoint_type == "Disabled":
            raise HostError("OperationFailed", f"Checkpoints are disabled for '{machine.name}'.")
        name = invocation.get("SnapshotName") or f"{machine.name} - checkpoint"
        if not what_if(invocation):
            checkpoint = host.checkpoint(machine, name)
            taken.append(checkpoint_object(host.machine(machine.id), checkpoint))
    return passed_through(invocation, taken)


def _chosen_checkpoints(host: Host, invocation: Invocation) -> list[tuple[Machine, Checkpoint]]:
    if invocation.given("VMSnapshot"):
        ids = [to_string(item.properties["Id"]) for item in as_list(invocation.get("VMSnapshot"))]
        return [(m, c) for m in host.state.machines for c in m.checkpoints if c.id in ids]
    wanted = as_list(invocation.get("Name"))
    found = []
    for machine in machines(host, invocation, "VMName"):
        named = [
            (machine, checkpoint)
            for checkpoint in machine.checkpoints
            if not wanted or any(matches(checkpoint.name, name) for name in wanted)
        ]
        if wanted and not named:
            raise _checkpoint_not_found(to_string(wanted))
        found += named
    return found


def _restore_checkpoint(host: Host, invocation: Invocation) -> Iterable[Value]:
    confirm(invocation, "Restore-VMSnapshot asks before it discards the current state")
    chosen = _chosen_checkpoints(host, invocation)
    for machine, checkpoint in chosen:
        if not what_if(invocation):
            host.restore(machine, checkpoint)
    return passed_through(invocation, (checkpoint_object(m, c) for m, c in chosen))


def _remove_checkpoint(host: Host, invocation: Invocation) -> Iterable[Value]:
    chosen = _chosen_checkpoints(host, invocation)
    if invocation.get("IncludeAllChildSnapshots"):
        for machine, checkpoint in list(chosen):
            chosen += [(machine, c) for c in machine.checkpoints if c.parent == checkpoint.id]
    for machine, checkpoint in chosen:
        if not what_if(invocation):
            host.remove_checkpoint(machine, checkpoint)
    return passed_through(invocation, (checkpoint_object(m, c) for m, c in chosen))


def _get_services(host: Host, invocation: Invocation) -> Iterable[Value]:
    wanted = as_list(invocation.get("Name"))
    return [
        service
        for machine in machines(host, invocation, "VMName")
        for service in service_objects(host, machine)
        if not wanted or any(matches(service.properties["Name"], name) for name in wanted)
    ]


def _enable_service(host: Host, invocation: Invocation) -> Iterable[Value]:
    return _switch_service(host, invocation, on=True)


def _disable_service(host: Host, invocation: Invocation) -> Iterable[Value]:
    return _switch_service(host, invocation, on=False)


def _switch_service(host: Host, invocation: Invocation, *, on: bool) -> Iterable[Value]:
    for machine in machines(host, invocation, "VMName"):
        if any(matches("Shutdown", name) for name in as_list(invocation.get("Name"))):
            _apply(host, machine, {"shutdown_service": on})
    return []


def _generation_two(machine: Machine) -> Machine:
    if machine.generation != 2:
        raise HostError(
            "InvalidParameter", f"'{machine.name}' is of generation 1 and has no firmware."
        )
    return machine


def _get_firmware(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = machines(host, invocation, "VMName")
    return [firmware_object(_generation_two(machine)) for machine in found]


def _set_firmware(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.given("VMFirmware"):
        ids = [to_string(f.properties["VMId"]) for f in as_list(invocation.get("VMFirmware"))]
        found = [machine for machine in host.state.machines if machine.id in ids]
    else:
        found = machines(host, invocation, "VMName")
    for machine in found:
        _generation_two(machine)
        changes: dict[str, Any] = {}
        if invocation.given("EnableSecureBoot"):
            changes["secure_boot"] = to_string(invocation.get("EnableSecureBoot")) == "On"
        if invocation.given("SecureBootTemplate"):
            changes["secure_boot_template"] = invocation.get("SecureBootTemplate")
        if invocation.given("FirstBootDevice"):
            device = invocation.get("FirstBootDevice")
            changes["first_boot"] = to_string(device.properties["Path"] or device)
        if not what_if(invocation):
            _apply(host, machine, changes)
    return passed_through(invocation, (firmware_object(m) for m in _again(host, found)))


CMDLETS: dict[str, Implementation] = {
    "Get-VM": _get_vm,
    "New-VM": _new_vm,
    "Set-VM": _set_vm,
    "Set-VMProcessor": _set_processor,
    "Rename-VM": _rename_vm,
    "Start-VM": _start_vm,
    "Stop-VM": _stop_vm,
    "Remove-VM": _remove_vm,
    "Get-VMHost": _get_host,
    "Get-VMSnapshot": _get_checkpoints,
    "Checkpoint-VM": _take_checkpoint,
    "Restore-VMSnapshot": _restore_checkpoint,
    "Remove-VMSnapshot": _remove_checkpoint,
    "Get-VMIntegrationService": _get_services,
    "Enable-VMIntegrationService": _enable_service,
    "Disable-VMIntegrationService": _disable_service,
    "Get-VMFirmware": _get_firmware,
    "Set-VMFirmware": _set_firmware,
}
