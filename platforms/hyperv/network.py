"""Network settings: switch, VLAN and MAC address of adapters before boot, static addresses after.

A static address is handed to the guest by the host (Msvm_GuestNetworkAdapterConfiguration), which
works with a running guest whose data exchange service answers. The embedded instances are CIM-XML,
written here so that the script on the host only passes them on.
"""

from __future__ import annotations

import logging
from xml.sax.saxutils import escape

from models.errors import HypervisorFailed, MachineState
from models.machine import AdapterSettings, OnPremisesMachine
from models.spec import FailbackSpec, NetworkAdapter, StaticAddress
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.facts import Adapter, Machine, listed, same_name
from platforms.hyperv.host import Host

_log = logging.getLogger(__name__)

_ADDRESS_SECONDS = 60.0
# Return values of the method: done, and accepted as a job.
_ACCEPTED = (0, 4096)
_IPV4 = 4096


def apply(
    host: Host,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    adapters: list[NetworkAdapter],
    call: Call,
) -> None:
    """Connect adapters as asked; what is not asked for stays.

    Raises:
        MachineState: The machine has no such adapter, or several of that name.
    """
    found = host.resolve(spec, machine, call)
    for wanted in adapters:
        if wanted.switch is not None:
            connect(host, found, _only(host, found, wanted.name), wanted.switch, call)
        if wanted.vlan_id is not None:
            _set_vlan(host, found, wanted.name, wanted.vlan_id, call)
        if wanted.mac_address is not None:
            _set_mac(host, found, wanted.name, plain_mac(wanted.mac_address), call)


def restore(
    host: Host,
    spec: FailbackSpec,
    machine: OnPremisesMachine,
    recorded: list[AdapterSettings],
    call: Call,
) -> None:
    """Put recorded settings back; an adapter that is gone meanwhile has nothing to put back."""
    found = host.resolve(spec, machine, call)
    for settings in recorded:
        if not found.adapters_named(settings.name):
            _log.warning("%s has no adapter %s any more", found.name, settings.name)
            continue
        connect(host, found, _only(host, found, settings.name), settings.switch, call)
        _set_vlan(host, found, settings.name, settings.vlan_id, call)
        mac = plain_mac(settings.mac_address) if settings.mac_address else None
        _set_mac(host, found, settings.name, mac, call)


def connect(host: Host, found: Machine, adapter: Adapter, switch: str | None, call: Call) -> None:
    """Connect an adapter to a switch, or to none."""
    if not same_name(adapter.switch, switch or ""):
        host.ask(
            f"connect {adapter.name!r} of {found.name!r} to switch {switch or 'none'}",
            scripts.connect_adapter(found.id, adapter.id, switch),
            call,
        )


def recorded(adapter: Adapter) -> AdapterSettings:
    """An adapter's settings as they are put back later."""
    return AdapterSettings(
        name=adapter.name,
        switch=adapter.switch or None,
        vlan_id=adapter.vlan_id if adapter.vlan_mode == "Access" else None,
        mac_address=None if adapter.dynamic_mac else adapter.mac or None,
    )


def set_static_addresses(
    host: Host, spec: FailbackSpec, machine: OnPremisesMachine, call: Call
) -> list[str]:
    """Give the running guest its static addresses; returns in words what could not be done."""
    wanted = [
        (adapter.name, adapter.static)
        for adapter in spec.on_premises.adapters
        if adapter.static is not None
    ]
    if not wanted:
        return []
    found = host.resolve(spec, machine, call)
    if not found.is_running:
        return [f"{found.name} does not run, so its guest cannot be given addresses."]
    if not found.has_data_exchange:
        return [
            f"{found.name} has the integration service Data Exchange switched off; "
            "its addresses must be set inside the guest."
        ]
    problems = []
    for name, static in wanted:
        problem = _give(host, found, name, static, call)
        if problem:
            problems.append(problem)
    return problems


def plain_mac(address: str) -> str:
    """Twelve digits in upper case, as Hyper-V keeps them."""
    return "".join(character for character in address.upper() if character not in ":-. ")


def _give(host: Host, found: Machine, name: str, static: StaticAddress, call: Call) -> str | None:
    try:
        adapter = _only(host, found, name)
        instance = _configuration_of(host, found, adapter, call)
        if instance is None:
            return f"{name!r} of {found.name} has no guest configuration yet; is the guest up?"
        value = host.ask(
            f"give {name!r} of {found.name!r} its addresses",
            scripts.set_guest_network(found.id, [configuration_xml(instance, static)]),
            call,
        )
        if int(value or 0) not in _ACCEPTED:
            return f"Hyper-V refused the addresses of {name!r} of {found.name} (returned {value})."
        _wait_for_addresses(host, found, adapter, static, call)
    except (MachineState, HypervisorFailed) as error:
        return f"Addresses of {name!r} of {found.name}: {error}"
    return None


def _configuration_of(host: Host, found: Machine, adapter: Adapter, call: Call) -> str | None:
    """The id of the adapter's guest configuration; it holds the ids of machine and adapter."""
    answer = host.ask("list guest configurations", scripts.guest_network_configurations(), call)
    own = adapter.id.replace("/", "\\").rpartition("\\")[2].casefold()
    return next(
        (
            str(instance)
            for instance in listed(answer)
            if found.id.casefold() in str(instance).casefold() and own in str(instance).casefold()
        ),
        None,
    )


def _wait_for_addresses(
    host: Host, found: Machine, adapter: Adapter, static: StaticAddress, call: Call
) -> None:
    def reported() -> bool:
        now = host.machine(found.id, call)
        return any(
            set(static.addresses) <= set(other.addresses)
            for other in now.adapters
            if other.id == adapter.id
        )

    host.wait(
        f"the guest of {found.name!r} to report {', '.join(static.addresses)}",
        reported,
        call,
        seconds=_ADDRESS_SECONDS,
    )


def configuration_xml(instance_id: str, static: StaticAddress) -> str:
    """The embedded Msvm_GuestNetworkAdapterConfiguration, as CIM-XML."""
    return (
        '<INSTANCE CLASSNAME="Msvm_GuestNetworkAdapterConfiguration">'
        + _property("InstanceID", "string", instance_id)
        + _property("ProtocolIFType", "uint16", str(_IPV4))
        + _property("DHCPEnabled", "boolean", "FALSE")
        + _array("IPAddresses", static.addresses)
        + _array("Subnets", static.subnets)
        + _array("DefaultGateways", static.gateways)
        + _array("DNSServers", static.dns_servers)
        + "</INSTANCE>"
    )


def _property(name: str, kind: str, value: str) -> str:
    return f'<PROPERTY NAME="{name}" TYPE="{kind}"><VALUE>{escape(value)}</VALUE></PROPERTY>'


def _array(name: str, values: list[str]) -> str:
    inner = "".join(f"<VALUE>{escape(value)}</VALUE>" for value in values)
    return (
        f'<PROPERTY.ARRAY NAME="{name}" TYPE="string"><VALUE.ARRAY>{inner}</VALUE.ARRAY>'
        "</PROPERTY.ARRAY>"
    )


def _set_vlan(host: Host, found: Machine, name: str, vlan_id: int | None, call: Call) -> None:
    adapter = _only(host, found, name)
    now = adapter.vlan_id if adapter.vlan_mode == "Access" else None
    # A trunk cannot be described by one number: it is left alone where no VLAN is asked for.
    if now != vlan_id and not (vlan_id is None and adapter.vlan_mode != "Access"):
        host.ask(
            f"set the VLAN of {name!r} of {found.name!r}",
            scripts.set_vlan(found.id, adapter.id, vlan_id),
            call,
        )


def _set_mac(host: Host, found: Machine, name: str, mac: str | None, call: Call) -> None:
    adapter = _only(host, found, name)
    now = None if adapter.dynamic_mac else plain_mac(adapter.mac)
    if now != mac:
        host.ask(
            f"set the MAC address of {name!r} of {found.name!r}",
            scripts.set_mac(found.id, adapter.id, mac),
            call,
        )


def _only(host: Host, found: Machine, name: str) -> Adapter:
    matching = found.adapters_named(name)
    if len(matching) != 1:
        raise MachineState(
            f"Machine {found.name!r} on {host.name} has {len(matching) or 'no'} adapters named "
            f"{name!r}.",
            hint="Its adapters: "
            + (", ".join(adapter.name for adapter in found.adapters) or "none")
            + ".",
        )
    return matching[0]
