"""What the cmdlets share: finding what is named, refusing in Hyper-V's words, registering."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from lab.hyperv.host import Host, HostError
from lab.hyperv.model import Adapter, Machine
from lab.hyperv.powershell.binding import Syntax, parse_syntax
from lab.hyperv.powershell.expressions import compare
from lab.hyperv.powershell.session import Command, Invocation
from lab.hyperv.powershell.values import CmdletError, PSObject, Value, as_list, to_string
from lab.hyperv.storage import StorageError

Implementation = Callable[[Host, Invocation], Iterable[Value]]

_CATEGORIES = {
    "InvalidParameter": "InvalidArgument",
    "InvalidState": "InvalidOperation",
    "OperationFailed": "InvalidResult",
    "ObjectNotFound": "ObjectNotFound",
}
_STORAGE_CODES = {
    "missing": ("ObjectNotFound", "ObjectNotFound", 0x80070002 - 2**32),
    "exists": ("OperationFailed", "InvalidOperation", 0x80070050 - 2**32),
    "space": ("OperationFailed", "InvalidOperation", 0x80070070 - 2**32),
    "invalid": ("OperationFailed", "InvalidOperation", 0xC03A0002 - 2**32),
}
_TAKES = {
    "VirtualMachine": "VM",
    "HardDiskDrive": "VMHardDiskDrive",
    "VMSnapshot": "VMSnapshot",
    "VMNetworkAdapter": "VMNetworkAdapter",
    "VMSwitch": "VMSwitch",
    "VMFirmware": "VMFirmware",
}
_BY_NAME = ("Name", "VMName", "Path", "InputObject")


def load_syntaxes() -> dict[str, Syntax]:
    """Every cmdlet that exists, with its parameter sets.

    ``cmdlets.json`` holds the syntax lines of Microsoft's reference for Windows Server 2025 (docset
    winserver2025-ps of windows-powershell-docs), ``cmdlets_other.json`` those of further cmdlets,
    written by hand from their help.
    """
    folder = Path(__file__).parent.parent
    syntaxes: dict[str, Syntax] = {}
    for file in ("cmdlets.json", "cmdlets_other.json"):
        for name, sets in json.loads((folder / file).read_text(encoding="utf-8")).items():
            syntaxes[name] = parse_syntax(name, sets)
    return syntaxes


def bind_commands(
    host: Host, syntaxes: Mapping[str, Syntax], implementations: Mapping[str, Implementation]
) -> dict[str, Command]:
    """Commands by lower-case name; one that exists but is not implemented says so when called."""
    commands = {}
    for name, syntax in syntaxes.items():
        function = implementations.get(name, _not_in_the_lab)
        names = {parameter for members in syntax.sets.values() for parameter in members}
        takes = {kind: name for kind, name in _TAKES.items() if name in names}
        by_name = next((name for name in _BY_NAME if name in names), None)
        if by_name is not None:
            takes["String"] = by_name
        if "InputObject" in names:
            takes["Object"] = "InputObject"
        commands[name.lower()] = Command(syntax, _run(host, function), _error_class(name), takes)
    return commands


def _error_class(name: str) -> str:
    noun = name.partition("-")[2]
    if noun == "VHD":
        return "Microsoft.Vhd.PowerShell.Cmdlets"
    if noun.startswith("VM"):
        return "Microsoft.HyperV.PowerShell.Commands"
    if noun.startswith("Cim"):
        return "Microsoft.Management.Infrastructure.CimCmdlets"
    return "Microsoft.PowerShell.Commands"


def _run(host: Host, function: Implementation) -> Callable[[Invocation], Iterable[Value]]:
    def run(invocation: Invocation) -> list[Value]:
        # One cmdlet at a time: what it has checked still holds when it acts.
        with host.lock, refusals():
            return list(function(host, invocation))

    return run


def _not_in_the_lab(host: Host, invocation: Invocation) -> Iterable[Value]:
    raise CmdletError(
        "The cmdlet exists, but the lab's host does not do what it does.",
        identifier="NotInTheLab",
        category="NotImplemented",
        exception_type="System.NotSupportedException",
    )


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns the host's refusals into the errors of cmdlets."""
    try:
        yield
    except HostError as error:
        kind = error.kind
        raise CmdletError(str(error), identifier=kind, category=_CATEGORIES[kind]) from None
    except StorageError as error:
        identifier, category, hresult = _STORAGE_CODES[error.kind]
        raise CmdletError(
            str(error), identifier=identifier, category=category, hresult=hresult
        ) from None


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern with ``*`` and ``?``."""
    return bool(compare("-like", name, pattern))


def machines(host: Host, invocation: Invocation, parameter: str = "Name") -> list[Machine]:
    """The machines that a call names, by object, by name or by pattern.

    Raises:
        CmdletError: a name without wildcards is no machine's.
    """
    if invocation.given("VM"):
        ids = [to_string(vm.properties["Id"]) for vm in as_list(invocation.get("VM"))]
        return [machine for machine in host.state.machines if machine.id in ids]
    found: list[Machine] = []
    for name in as_list(invocation.get(parameter)):
        named = [machine for machine in host.state.machines if matches(machine.name, name)]
        if not named and not any(letter in name for letter in "*?"):
            raise machine_not_found(name)
        found += named
    return found


def machine_not_found(name: str) -> CmdletError:
    return CmdletError(
        f'Hyper-V was unable to find a virtual machine with name "{name}".',
        identifier="InvalidParameter",
        target=name,
    )


def adapters(host: Host, invocation: Invocation) -> list[tuple[Machine, Adapter]]:
    """The network adapters that a call names: as objects, or by machine and perhaps name."""
    if invocation.given("VMNetworkAdapter"):
        ids = {
            to_string(item.properties["AdapterId"]).lower()
            for item in as_list(invocation.get("VMNetworkAdapter"))
        }
        return [(m, a) for m in host.state.machines for a in m.adapters if a.id.lower() in ids]
    wanted = as_list(invocation.get("Name") or invocation.get("VMNetworkAdapterName"))
    found: list[tuple[Machine, Adapter]] = []
    for machine in machines(host, invocation, "VMName"):
        named = [a for a in machine.adapters if not wanted or _any_matches(a.name, wanted)]
        if wanted and not named:
            raise CmdletError(
                "Hyper-V was unable to find a network adapter with name "
                f'"{to_string(wanted)}" on "{machine.name}".',
                identifier="InvalidParameter",
                target=to_string(wanted),
            )
        found += [(machine, adapter) for adapter in named]
    return found


def _any_matches(name: str, patterns: list[Value]) -> bool:
    return any(matches(name, to_string(pattern)) for pattern in patterns)


def confirm(invocation: Invocation, what: str) -> None:
    """Where PowerShell would ask a person: refused unless the caller said not to ask.

    Raises:
        CmdletError: nobody is there to answer.
    """
    if invocation.get("Force") or invocation.get("Confirm") is False:
        return
    raise CmdletError(
        f"{what}: Windows PowerShell is in NonInteractive mode. Read and Prompt functionality is "
        "not available.",
        identifier="InvalidOperation",
        category="InvalidOperation",
        exception_type="System.Management.Automation.PSInvalidOperationException",
    )


def what_if(invocation: Invocation) -> bool:
    return bool(invocation.get("WhatIf"))


def passed_through(invocation: Invocation, objects: Iterable[PSObject]) -> list[PSObject]:
    """Objects of a cmdlet that puts them out only with -Passthru."""
    return list(objects) if invocation.get("Passthru") else []
