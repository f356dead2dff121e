"""Cmdlets for virtual switches and network adapters."""

import re
from collections.abc import Iterable

from lab.hyperv.cmdlets.common import (
    Implementation,
    adapters,
    machines,
    matches,
    passed_through,
    what_if,
)
from lab.hyperv.cmdlets.objects import adapter_object, switch_object, vlan_object
from lab.hyperv.host import Host, HostError
from lab.hyperv.model import Adapter, Machine
from lab.hyperv.powershell.session import Invocation
from lab.hyperv.powershell.values import PSObject, Value, as_list, to_string


def _get_switches(host: Host, invocation: Invocation) -> Iterable[Value]:
    kinds = [to_string(kind) for kind in as_list(invocation.get("SwitchType"))]
    ids = [to_string(item) for item in as_list(invocation.get("Id"))]
    name = invocation.get("Name")
    found = [
        switch
        for switch in host.state.switches
        if (name is None or matches(switch.name, name))
        and (not ids or switch.id in ids)
        and (not kinds or switch.kind in kinds)
    ]
    if name is not None and not found and "*" not in name:
        raise _switch_not_found(name)
    return [switch_object(host, switch) for switch in found]


def _switch_not_found(name: str) -> HostError:
    return HostError(
        "InvalidParameter", f'Hyper-V was unable to find a virtual switch with name "{name}".'
    )


def _get_adapters(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.get("All"):
        return [adapter_object(host, m, a) for m in host.state.machines for a in m.adapters]
    if invocation.given("Name"):
        return [adapter_object(host, m, a) for m, a in adapters(host, invocation)]
    found = machines(host, invocation, "VMName")
    return [adapter_object(host, machine, a) for machine in found for a in machine.adapters]


def _add_adapter(host: Host, invocation: Invocation) -> Iterable[Value]:
    added: list[PSObject] = []
    switch = invocation.get("SwitchName")
    if switch is not None:
        _known_switch(host, switch)
    for machine in machines(host, invocation, "VMName"):
        mac = invocation.get("StaticMacAddress")
        adapter = Adapter(name=invocation.get("Name", "Network Adapter"), switch=switch)
        if mac is not None:
            adapter.mac, adapter.dynamic_mac = _mac(mac), False
        if not what_if(invocation):
            with host.changing(machine.id) as changed:
                changed.adapters.append(adapter)
            added.append(adapter_object(host, host.machine(machine.id), adapter))
    return passed_through(invocation, added)


def _remove_adapter(host: Host, invocation: Invocation) -> Iterable[Value]:
    for machine, adapter in adapters(host, invocation):
        if not what_if(invocation):
            with host.changing(machine.id) as changed:
                changed.adapters = [one for one in changed.adapters if one.id != adapter.id]
    return []


def _known_switch(host: Host, name: str) -> str:
    for switch in host.state.switches:
        if switch.name.lower() == name.lower():
            return switch.name
    raise _switch_not_found(name)


def _mac(given: str) -> str:
    mac = re.sub(r"[-:.]", "", given).upper()
    if not re.fullmatch(r"[0-9A-F]{12}", mac):
        raise HostError("InvalidParameter", f"'{given}' is not a MAC address.")
    return mac


def _change(host: Host, machine: Machine, adapter: Adapter, **values: object) -> None:
    with host.changing(machine.id) as changed:
        target = next(one for one in changed.adapters if one.id == adapter.id)
        for attribute, value in values.items():
            setattr(target, attribute, value)


def _refreshed(host: Host, chosen: list[tuple[Machine, Adapter]]) -> Iterable[PSObject]:
    for machine, adapter in chosen:
        now = host.machine(machine.id)
        current = next(one for one in now.adapters if one.id == adapter.id)
        yield adapter_object(host, now, current)


def _connect(host: Host, invocation: Invocation) -> Iterable[Value]:
    switch = invocation.get("SwitchName")
    if switch is None and isinstance(invocation.get("VMSwitch"), PSObject):
        switch = to_string(invocation.get("VMSwitch").properties["Name"])
    if switch is None:
        raise HostError("InvalidParameter", "The lab has no automatic connection.")
    switch = _known_switch(host, switch)
    chosen = adapters(host, invocation)
    for machine, adapter in chosen:
        if not what_if(invocation):
            _change(host, machine, adapter, switch=switch)
    return passed_through(invocation, _refreshed(host, chosen))


def _disconnect(host: Host, invocation: Invocation) -> Iterable[Value]:
    chosen = adapters(host, invocation)
    for machine, adapter in chosen:
        if not what_if(invocation):
            _change(host, machine, adapter, switch=None)
    return passed_through(invocation, _refreshed(host, chosen))


def _set_adapter(host: Host, invocation: Invocation) -> Iterable[Value]:
    chosen = adapters(host, invocation)
    for machine, adapter in chosen:
        mac = invocation.get("StaticMacAddress")
        if (mac or invocation.get("DynamicMacAddress")) and machine.state == "Running":
            raise HostError(
                "InvalidState",
                f"'{machine.name}': the MAC address cannot be changed while the machine runs.",
            )
        if what_if(invocation):
            continue
        if mac:
            _change(host, machine, adapter, mac=_mac(mac), dynamic_mac=False)
        elif invocation.get("DynamicMacAddress"):
            _change(host, machine, adapter, mac="000000000000", dynamic_mac=True)
    return passed_through(invocation, _refreshed(host, chosen))


def _get_vlan(host: Host, invocation: Invocation) -> Iterable[Value]:
    return [vlan_object(adapter) for _, adapter in adapters(host, invocation)]


def _set_vlan(host: Host, invocation: Invocation) -> Iterable[Value]:
    chosen = adapters(host, invocation)
    for machine, adapter in chosen:
        if what_if(invocation):
            continue
        if invocation.get("Untagged"):
            _change(host, machine, adapter, vlan_mode="Untagged", vlan_id=0)
            continue
        vlan = invocation.get("VlanId")
        if not invocation.get("Access") or vlan is None or not 1 <= vlan <= 4094:
            raise HostError(
                "InvalidParameter", "The lab needs -Untagged, or -Access with -VlanId 1 to 4094."
            )
        _change(host, machine, adapter, vlan_mode="Access", vlan_id=vlan)
    return passed_through(invocation, _refreshed(host, chosen))


CMDLETS: dict[str, Implementation] = {
    "Get-VMSwitch": _get_switches,
    "Get-VMNetworkAdapter": _get_adapters,
    "Add-VMNetworkAdapter": _add_adapter,
    "Remove-VMNetworkAdapter": _remove_adapter,
    "Connect-VMNetworkAdapter": _connect,
    "Disconnect-VMNetworkAdapter": _disconnect,
    "Set-VMNetworkAdapter": _set_adapter,
    "Get-VMNetworkAdapterVlan": _get_vlan,
    "Set-VMNetworkAdapterVlan": _set_vlan,
}
