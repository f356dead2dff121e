"""CIM cmdlets over the part of ``root/virtualization/v2`` that puts static addresses into a guest.

The way there is the usual one: Msvm_ComputerSystem, its realised Msvm_VirtualSystemSettingData,
the Msvm_SyntheticEthernetPortSettingData of an adapter, its Msvm_GuestNetworkAdapterConfiguration;
then Msvm_VirtualSystemManagementService.SetGuestNetworkAdapterConfiguration with that instance as
text, in CIM's XML or MOF.
"""

import re
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable

from lab.hyperv.cmdlets.common import Implementation, what_if
from lab.hyperv.host import Host, HostError
from lab.hyperv.model import Adapter, Machine, StaticAddress
from lab.hyperv.powershell.session import Invocation
from lab.hyperv.powershell.values import (
    CUSTOM_OBJECT,
    CmdletError,
    Hashtable,
    PSObject,
    Value,
    as_list,
    equal,
    to_string,
)

_NAMESPACE = "root/virtualization/v2"
_CIM = "Microsoft.Management.Infrastructure.CimInstance"
_CONFIGURATION = "Msvm_GuestNetworkAdapterConfiguration"
_JOB_STARTED = 4096
_JOB_COMPLETED, _JOB_FAILED = 7, 10


def _instance(class_name: str, properties: list[tuple[str, Value]]) -> PSObject:
    known = PSObject("Microsoft.Management.Infrastructure.CimClass", [("CimClassName", class_name)])
    return PSObject(
        _CIM,
        [*properties, ("CimClass", known), ("CreationClassName", class_name)],
        text=class_name,
    )


def class_name_of(instance: PSObject) -> str:
    return to_string(instance.properties["CreationClassName"])


def _computer_systems(host: Host) -> list[PSObject]:
    return [
        _instance(
            "Msvm_ComputerSystem",
            [
                ("ElementName", machine.name),
                ("Name", machine.id.upper()),
                ("Caption", "Virtual Machine"),
                ("EnabledState", 2 if machine.state == "Running" else 3),
            ],
        )
        for machine in host.state.machines
    ]


def _settings(host: Host) -> list[PSObject]:
    return [
        _instance(
            "Msvm_VirtualSystemSettingData",
            [
                ("ElementName", machine.name),
                ("InstanceID", f"Microsoft:{machine.id.upper()}"),
                ("VirtualSystemIdentifier", machine.id.upper()),
                ("VirtualSystemType", "Microsoft:Hyper-V:System:Realized"),
                ("Notes", [machine.notes]),
            ],
        )
        for machine in host.state.machines
    ]


def _each_adapter(host: Host) -> Iterable[tuple[Machine, Adapter]]:
    return [(machine, a) for machine in host.state.machines for a in machine.adapters]


def _ports(host: Host) -> list[PSObject]:
    return [
        _instance(
            "Msvm_SyntheticEthernetPortSettingData",
            [
                ("ElementName", adapter.name),
                ("InstanceID", f"Microsoft:{machine.id.upper()}\\{adapter.id.upper()}"),
                ("Address", adapter.mac),
                ("StaticMacAddress", not adapter.dynamic_mac),
            ],
        )
        for machine, adapter in _each_adapter(host)
    ]


def _configurations(host: Host) -> list[PSObject]:
    found = []
    for machine, adapter in _each_adapter(host):
        guest = adapter.guest
        shown = host.addresses(machine, adapter) or guest.addresses
        found.append(
            _instance(
                _CONFIGURATION,
                [
                    (
                        "InstanceID",
                        f"Microsoft:GuestNetwork\\{machine.id.upper()}\\{adapter.id.upper()}",
                    ),
                    ("ProtocolIFType", 4096),
                    ("DHCPEnabled", guest.dhcp),
                    ("IPAddresses", list(shown)),
                    ("Subnets", list(guest.subnets)),
                    ("DefaultGateways", list(guest.gateways)),
                    ("DNSServers", list(guest.dns_servers)),
                ],
            )
        )
    return found


def _services(host: Host) -> list[PSObject]:
    name = "Msvm_VirtualSystemManagementService"
    return [_instance(name, [("Name", "vmms"), ("ElementName", "Hyper-V Management Service")])]


def _operating_system(host: Host) -> list[PSObject]:
    return [
        _instance(
            "Win32_OperatingSystem",
            [
                ("Caption", "Microsoft Windows Server 2025 Datacenter (lab)"),
                ("Version", "10.0.26100"),
                ("CSName", host.state.name),
            ],
        )
    ]


_CLASSES: dict[str, Callable[[Host], list[PSObject]]] = {
    "Msvm_ComputerSystem": _computer_systems,
    "Msvm_VirtualSystemSettingData": _settings,
    "Msvm_SyntheticEthernetPortSettingData": _ports,
    _CONFIGURATION: _configurations,
    "Msvm_VirtualSystemManagementService": _services,
    "Win32_OperatingSystem": _operating_system,
}


def _instances(host: Host, class_name: str, jobs: Iterable[PSObject] = ()) -> list[PSObject]:
    if class_name.lower() == "msvm_concretejob":
        return list(jobs)
    for known, function in _CLASSES.items():
        if known.lower() == class_name.lower():
            return function(host)
    raise CmdletError(
        "Invalid class ",
        identifier="HRESULT 0x80041010",
        category="MetadataError",
        exception_type="Microsoft.Management.Infrastructure.CimException",
        target=f"{_NAMESPACE}:{class_name}",
        hresult=0x80041010 - 2**32,
    )


def _get_instances(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.given("InputObject"):
        given = invocation.get("InputObject")
        key = "InstanceID" if "InstanceID" in given.properties else "Name"
        found = _instances(host, class_name_of(given), _jobs(host))
        return [one for one in found if equal(one.properties[key], given.properties[key])]
    class_name, condition = invocation.get("ClassName"), invocation.get("Filter")
    if invocation.given("Query"):
        query = re.fullmatch(
            r"\s*select\s+.+?\s+from\s+(\w+)(?:\s+where\s+(.+))?\s*",
            invocation.get("Query"),
            re.IGNORECASE | re.DOTALL,
        )
        if query is None:
            raise _bad_filter(invocation.get("Query"))
        class_name, condition = query[1], query[2]
    found = _instances(host, class_name, _jobs(host))
    return [one for one in found if _fits(one, condition)]


def _fits(instance: PSObject, condition: str | None) -> bool:
    """A WQL condition of comparisons joined by AND."""
    for part in re.split(r"\s+and\s+", condition or "", flags=re.IGNORECASE) if condition else []:
        match = re.fullmatch(
            r"\s*(\w+)\s*(=|<>|!=|like)\s*(?:'([^']*)'|\"([^\"]*)\"|(\d+))\s*", part, re.IGNORECASE
        )
        if match is None:
            raise _bad_filter(part)
        wanted = next(group for group in match.groups()[2:] if group is not None)
        wanted = wanted.replace("\\\\", "\\")
        actual = to_string(instance.properties[match[1]])
        if match[2].lower() == "like":
            pattern = re.escape(wanted).replace("%", ".*")
            same = re.fullmatch(pattern, actual, re.IGNORECASE) is not None
        else:
            same = actual.lower() == wanted.lower()
        if same == (match[2] in ("<>", "!=")):
            return False
    return True


def _bad_filter(words: str) -> CmdletError:
    return CmdletError(
        f"Invalid query: {words}",
        identifier="HRESULT 0x80041017",
        category="InvalidArgument",
        exception_type="Microsoft.Management.Infrastructure.CimException",
        hresult=0x80041017 - 2**32,
    )


def _get_associated(host: Host, invocation: Invocation) -> Iterable[Value]:
    """Instances of the result class that belong to the same machine or adapter."""
    given = invocation.get("InputObject")
    wanted = invocation.get("ResultClassName")
    classes = [wanted] if wanted else [name for name in _CLASSES if name.startswith("Msvm_")]
    origin = _ids(given)
    return [
        one
        for name in classes
        for one in _instances(host, name, _jobs(host))
        if class_name_of(one) != class_name_of(given)
        and origin & _ids(one) == _shorter(origin, one)
    ]


def _ids(instance: PSObject) -> set[str]:
    """The GUIDs that an instance's identity is made of: its machine's, its adapter's."""
    text = to_string(instance.properties["InstanceID"] or instance.properties["Name"])
    return {found.upper() for found in re.findall(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4,12}){4}", text)}


def _shorter(origin: set[str], other: PSObject) -> set[str]:
    """What two related instances must have in common: all ids of the one nearer to the machine."""
    ids = _ids(other)
    return (origin if len(origin) <= len(ids) else ids) or {"unrelated"}


def _invoke(host: Host, invocation: Invocation) -> Iterable[Value]:
    given = invocation.get("InputObject")
    owner = class_name_of(given) if given is not None else to_string(invocation.get("ClassName"))
    method = invocation.get("MethodName")
    known = (owner.lower(), method.lower())
    if known != ("msvm_virtualsystemmanagementservice", "setguestnetworkadapterconfiguration"):
        raise CmdletError(
            "Invalid method Parameter(s) or method: the lab knows only "
            "SetGuestNetworkAdapterConfiguration.",
            identifier="HRESULT 0x8004102f",
            category="InvalidType",
            exception_type="Microsoft.Management.Infrastructure.CimException",
            hresult=0x8004102F - 2**32,
        )
    if what_if(invocation):
        return []
    return [_set_guest_configuration(host, invocation.get("Arguments"))]


def _set_guest_configuration(host: Host, arguments: Hashtable) -> PSObject:
    system = arguments["ComputerSystem"]
    texts = as_list(arguments["NetworkConfiguration"])
    if not isinstance(system, PSObject) or not texts:
        raise HostError("InvalidParameter", "ComputerSystem and NetworkConfiguration are needed.")
    machine = host.machine(str(uuid.UUID(to_string(system.properties["Name"]))))
    failure = "" if host.booted(machine) else "The guest's Data Exchange service does not answer."
    for text in texts:
        values = parse_instance(to_string(text))
        if not failure:
            _configure(host, machine, values)
    job = _instance(
        "Msvm_ConcreteJob",
        [
            ("InstanceID", str(uuid.uuid4()).upper()),
            ("JobState", _JOB_FAILED if failure else _JOB_COMPLETED),
            ("PercentComplete", 100),
            ("ErrorCode", 32775 if failure else 0),
            ("ErrorDescription", failure),
        ],
    )
    _JOBS.setdefault(id(host), []).append(job)
    return PSObject(CUSTOM_OBJECT, [("ReturnValue", _JOB_STARTED), ("Job", job)])


_JOBS: dict[int, list[PSObject]] = {}
"""Finished jobs by host; like the real ones they do not outlive the service."""


def _jobs(host: Host) -> list[PSObject]:
    return _JOBS.get(id(host), [])


def _configure(host: Host, machine: Machine, values: dict[str, list[str]]) -> None:
    instance_id = "".join(values.get("InstanceID", []))
    with host.changing(machine.id) as changed:
        chosen = [a for a in changed.adapters if a.id.upper() in instance_id.upper()]
        if not chosen and len(changed.adapters) == 1:
            chosen = changed.adapters
        if not chosen:
            raise HostError("InvalidParameter", f"No adapter has the id '{instance_id}'.")
        if "DHCPEnabled" not in values:
            raise HostError("InvalidParameter", "DHCPEnabled is mandatory.")
        if len(values.get("DefaultGateways", [])) > 5:
            raise HostError("InvalidParameter", "At most five default gateways are possible.")
        chosen[0].guest = StaticAddress(
            dhcp="".join(values["DHCPEnabled"]).lower() == "true",
            addresses=values.get("IPAddresses", []),
            subnets=values.get("Subnets", []),
            gateways=values.get("DefaultGateways", []),
            dns_servers=values.get("DNSServers", []),
        )


def parse_instance(text: str) -> dict[str, list[str]]:
    """The properties of an embedded instance in CIM's XML or in MOF.

    Raises:
        HostError: it is neither, or of another class.
    """
    if _CONFIGURATION not in text:
        raise HostError("InvalidParameter", f"An embedded {_CONFIGURATION} was expected.")
    if text.lstrip("\ufeff ").startswith("<"):
        try:
            root = ElementTree.fromstring(text.lstrip("\ufeff "))
        except ElementTree.ParseError as error:
            raise HostError("InvalidParameter", f"The instance is no XML: {error}") from None
        return {
            element.get("NAME", ""): [value.text or "" for value in element.iter("VALUE")]
            for element in root.iter()
            if element.tag in ("PROPERTY", "PROPERTY.ARRAY")
        }
    values = {}
    for name, value in re.findall(r"(\w+)\s*=\s*(\{[^}]*\}|\"[^\"]*\"|\w+)\s*;", text):
        quoted = re.findall(r'"([^"]*)"', value)
        plain = value.strip("{} ")
        values[name] = [q.replace("\\\\", "\\") for q in quoted] or ([plain] if plain else [])
    return values


CMDLETS: dict[str, Implementation] = {
    "Get-CimInstance": _get_instances,
    "Get-CimAssociatedInstance": _get_associated,
    "Invoke-CimMethod": _invoke,
}
