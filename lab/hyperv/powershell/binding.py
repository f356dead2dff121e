"""Binding of a command's arguments to its parameters, as strict as PowerShell's own.

A cmdlet's parameter sets come as the syntax lines of its documentation, such as ``Get-VHD [-Path]
<String[]> [-ComputerName <String[]>]``. Unknown parameters, missing mandatory ones, values of a
wrong type and mixtures of parameter sets are refused with PowerShell's words and error ids.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from lab.hyperv.powershell.values import (
    EnumMember,
    ErrorRecord,
    Hashtable,
    PowerShellError,
    PSObject,
    ScriptBlock,
    Value,
    equal,
    invalid_cast,
    parse_number,
    to_bool,
    to_number,
    to_string,
)

SWITCH = "SwitchParameter"
COMMON_PARAMETERS = {
    "ErrorAction": "ActionPreference",
    "WarningAction": "ActionPreference",
    "InformationAction": "ActionPreference",
    "ErrorVariable": "String",
    "WarningVariable": "String",
    "OutVariable": "String",
    "Verbose": SWITCH,
    "Debug": SWITCH,
}
_ALIASES = {"ea": "ErrorAction", "wa": "WarningAction"}
ENUMERATIONS: dict[str, dict[str, int]] = {
    "ActionPreference": {
        "SilentlyContinue": 0,
        "Stop": 1,
        "Continue": 2,
        "Inquire": 3,
        "Ignore": 4,
    },
    "ControllerType": {"IDE": 0, "SCSI": 1, "FLOPPY": 2, "PMEM": 3},
    "OnOffState": {"On": 0, "Off": 1},
    "StartAction": {"Nothing": 2, "StartIfRunning": 3, "Start": 4},
    "StopAction": {"TurnOff": 2, "Save": 3, "ShutDown": 4},
    "CheckpointType": {"Disabled": 2, "Production": 3, "ProductionOnly": 4, "Standard": 5},
    "SnapshotType": {
        "Standard": 2,
        "Recovery": 3,
        "Planned": 4,
        "Missing": 5,
        "Replica": 6,
        "AppConsistentReplica": 7,
        "SyncedReplica": 8,
    },
    "VhdType": {"Unknown": 0, "Fixed": 2, "Dynamic": 3, "Differencing": 4},
    "VMSwitchType": {"Private": 0, "Internal": 1, "External": 2},
    "BootDevice": {
        "Floppy": 0,
        "CD": 1,
        "IDE": 2,
        "LegacyNetworkAdapter": 3,
        "NetworkAdapter": 4,
        "VHD": 5,
    },
    "ItemType": {"File": 0, "Directory": 1},
}
_INTEGERS = {
    "Int16": (-(2**15), 2**15 - 1),
    "Int32": (-(2**31), 2**31 - 1),
    "UInt32": (0, 2**32 - 1),
    "Int64": (-(2**63), 2**63 - 1),
    "UInt64": (0, 2**64 - 1),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of one set. `position` counts from 0, None when it must be named."""

    name: str
    type_name: str
    mandatory: bool
    position: int | None


@dataclass(frozen=True)
class Syntax:
    """All parameter sets of a command; the first one is the default."""

    name: str
    sets: Mapping[str, Mapping[str, Parameter]]

    @property
    def parameters(self) -> dict[str, str]:
        """Every parameter's proper name by its lower-case one."""
        names = {name for parameters in self.sets.values() for name in parameters}
        return {name.lower(): name for name in (*names, *COMMON_PARAMETERS)}


@dataclass(frozen=True)
class Argument:
    """One element after a command's name: a named or a positional value, or a bare switch."""

    name: str | None
    value: Value = None
    bare: bool = False


@dataclass(frozen=True)
class Bound:
    """The arguments as the command gets them, by proper parameter names."""

    set_name: str
    values: dict[str, Value]
    common: dict[str, Value]


_PARAMETER = re.compile(
    r"\[\[-(?P<optional_positional>\w+)\] <(?P<type1>[^>]+)>\]"
    r"|\[-(?P<positional>\w+)\] <(?P<type2>[^>]+)>"
    r"|\[-(?P<optional>\w+)(?: <(?P<type3>[^>]+)>)?\]"
    r"|-(?P<mandatory>\w+)(?: <(?P<type4>[^>]+)>)?"
)


def parse_syntax(name: str, sets: Mapping[str, str]) -> Syntax:
    """Syntax lines by set name, as the documentation prints them, to a `Syntax`."""
    return Syntax(name, {title: _parse_set(line) for title, line in sets.items()})


def _parse_set(line: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    position = 0
    for match in _PARAMETER.finditer(line.replace("[<CommonParameters>]", "")):
        positional = match["optional_positional"] or match["positional"]
        name = positional or match["optional"] or match["mandatory"]
        type_name = match["type1"] or match["type2"] or match["type3"] or match["type4"] or SWITCH
        mandatory = bool(match["positional"] or match["mandatory"])
        found[name] = Parameter(name, type_name, mandatory, position if positional else None)
        position += 1 if positional else 0
    return found


def bind(syntax: Syntax, arguments: list[Argument], piped: Mapping[str, Value]) -> Bound:
    """Binds the arguments; `piped` holds what the pipeline offers by parameter name, and is used
    only for parameters that were not given.

    Raises:
        PowerShellError: a ParameterBindingException, as PowerShell would raise it.
    """
    named, positional = _name_arguments(syntax, arguments)
    common = {name: value for name, value in named.items() if name in COMMON_PARAMETERS}
    named = {name: value for name, value in named.items() if name not in COMMON_PARAMETERS}
    candidates = [title for title, members in syntax.sets.items() if set(named) <= set(members)]
    if not candidates:
        raise _ambiguous(syntax)
    complaints: list[PowerShellError] = []
    for title in candidates:
        try:
            values = _bind_set(syntax, title, named, positional, piped)
        except PowerShellError as error:
            complaints.append(error)
            continue
        return Bound(title, values, {name: _common(name, value) for name, value in common.items()})
    raise complaints[0]


def _name_arguments(
    syntax: Syntax, arguments: list[Argument]
) -> tuple[dict[str, Value], list[Value]]:
    """Sorts arguments into named and positional ones; a bare name takes the next value unless it is
    a switch."""
    named: dict[str, Value] = {}
    positional: list[Value] = []
    waiting: str | None = None
    for argument in arguments:
        if argument.name is None:
            if waiting is None:
                positional.append(argument.value)
            else:
                named[waiting], waiting = argument.value, None
            continue
        if waiting is not None:
            raise _missing_argument(syntax, waiting)
        name = _resolve(syntax, argument.name)
        if name in named:
            raise _binding_error(
                syntax,
                f"Cannot bind parameter because parameter '{name}' is specified more than once.",
                "ParameterAlreadyBound",
            )
        if not argument.bare:
            named[name] = argument.value
        elif _is_switch(syntax, name):
            named[name] = True
        else:
            waiting = name
    if waiting is not None:
        raise _missing_argument(syntax, waiting)
    return named, positional


def _bind_set(
    syntax: Syntax,
    title: str,
    named: Mapping[str, Value],
    positional: list[Value],
    piped: Mapping[str, Value],
) -> dict[str, Value]:
    members = syntax.sets[title]
    values = dict(named)
    free = sorted(
        (member for member in members.values() if member.position is not None),
        key=lambda member: member.position or 0,
    )
    free = [member for member in free if member.name not in named]
    if len(positional) > len(free):
        extra = to_string(positional[len(free)])
        raise _binding_error(
            syntax,
            "A positional parameter cannot be found that accepts argument " + f"'{extra}'.",
            "PositionalParameterNotFound",
        )
    values.update({member.name: value for member, value in zip(free, positional, strict=False)})
    for name, value in piped.items():
        if name in members:
            values.setdefault(name, value)
    missing = [name for name, member in members.items() if member.mandatory and name not in values]
    if missing:
        raise _binding_error(
            syntax,
            "Cannot process command because of one or more missing mandatory parameters: "
            f"{' '.join(missing)}.",
            "MissingMandatoryParameter",
        )
    return {
        name: _convert(syntax, name, members[name].type_name, value)
        for name, value in values.items()
    }


def _resolve(syntax: Syntax, given: str) -> str:
    """The proper name of a parameter given in any case, perhaps shortened."""
    known = syntax.parameters
    wanted = given.lower()
    if wanted in known:
        return known[wanted]
    if wanted in _ALIASES:
        return _ALIASES[wanted]
    matches = sorted(name for lower, name in known.items() if lower.startswith(wanted))
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _binding_error(
            syntax,
            f"Parameter cannot be processed because the parameter name '{given}' is ambiguous. "
            f"Possible matches include: {' '.join('-' + name for name in matches)}.",
            "AmbiguousParameter",
        )
    raise _binding_error(
        syntax,
        f"A parameter cannot be found that matches parameter name '{given}'.",
        "NamedParameterNotFound",
    )


def _is_switch(syntax: Syntax, name: str) -> bool:
    if name in COMMON_PARAMETERS:
        return COMMON_PARAMETERS[name] == SWITCH
    return any(
        members[name].type_name == SWITCH for members in syntax.sets.values() if name in members
    )


def _common(name: str, value: Value) -> Value:
    type_name = COMMON_PARAMETERS[name]
    return convert(type_name, value) if type_name in ENUMERATIONS else value


def _convert(syntax: Syntax, name: str, type_name: str, value: Value) -> Value:
    try:
        if value is None and type_name not in (SWITCH, "Object", "Object[]"):
            raise invalid_cast("", f"System.{type_name}", "the argument is null")
        if value == "" and type_name.startswith("String") and name in _NOT_EMPTY:
            raise invalid_cast("", f"System.{type_name}", "the argument is an empty string")
        return convert(type_name, value)
    except PowerShellError as error:
        raise _binding_error(
            syntax,
            f"Cannot bind argument to parameter '{name}'. {error.record.message}",
            "ParameterArgumentTransformationError",
        ) from None


_NOT_EMPTY = frozenset({"Name", "VMName", "Path", "SwitchName", "LiteralPath"})


def convert(type_name: str, value: Value) -> Value:
    """A value as a parameter or a cast of that type wants it.

    Raises:
        PowerShellError: there is no such conversion.
    """
    if type_name.endswith("[]"):
        items = value if isinstance(value, list) else [value]
        return [convert(type_name[:-2], item) for item in items]
    if isinstance(value, list) and type_name not in ("Object", "ScriptBlock", "Hashtable"):
        if len(value) == 1:
            return convert(type_name, value[0])
        raise invalid_cast(value, f"System.{type_name}", "an array is not one value")
    if type_name == "String":
        return to_string(value)
    if type_name in (SWITCH, "Boolean"):
        if isinstance(value, str):
            raise invalid_cast(value, "System.Boolean", "use $true, $false, 1 or 0 instead")
        return to_bool(value)
    if type_name in _INTEGERS:
        return _integer(type_name, value)
    if type_name == "Guid":
        return _guid(value)
    if type_name in ENUMERATIONS:
        return _member(type_name, value)
    if type_name in ("ScriptBlock", "Hashtable"):
        wanted = ScriptBlock if type_name == "ScriptBlock" else Hashtable
        if not isinstance(value, wanted):
            raise invalid_cast(value, f"System.{type_name}")
        return value
    if type_name in _OBJECTS and not (
        isinstance(value, PSObject) and value.type_name.split(".")[-1] in _OBJECTS[type_name]
    ):
        raise invalid_cast(value, f"Microsoft.HyperV.PowerShell.{type_name}")
    return value


_OBJECTS = {
    "VirtualMachine": {"VirtualMachine"},
    "HardDiskDrive": {"HardDiskDrive"},
    "VMSnapshot": {"VMSnapshot"},
    "VMNetworkAdapter": {"VMNetworkAdapter"},
    "VMNetworkAdapterBase": {"VMNetworkAdapter"},
    "VMSwitch": {"VMSwitch"},
    "VMFirmware": {"VMFirmware"},
    "VMComponentObject": {"HardDiskDrive", "VMNetworkAdapter", "VMBootSource"},
}


def _integer(type_name: str, value: Value) -> int:
    number = parse_number(value) if isinstance(value, str) else to_number(value)
    if number is None:
        raise invalid_cast(value, f"System.{type_name}", "Input string was not in a correct format")
    low, high = _INTEGERS[type_name]
    if not low <= number <= high:
        raise invalid_cast(value, f"System.{type_name}", "Value was too large or too small")
    return round(number)


def _guid(value: Value) -> uuid.UUID:
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(to_string(value))
    except ValueError:
        raise invalid_cast(value, "System.Guid", "Unrecognized Guid format.") from None


def _member(type_name: str, value: Value) -> EnumMember:
    for name, number in ENUMERATIONS[type_name].items():
        if equal(EnumMember(type_name, name, number), value):
            return EnumMember(type_name, name, number)
    names = ",".join(ENUMERATIONS[type_name])
    raise invalid_cast(
        value,
        f"Microsoft.HyperV.PowerShell.{type_name}",
        f"The possible enumeration values are: {names}",
    )


def enum(type_name: str, name: str) -> EnumMember:
    """A member of one of `ENUMERATIONS` by its name."""
    return EnumMember(type_name, name, ENUMERATIONS[type_name][name])


def _binding_error(syntax: Syntax, message: str, identifier: str) -> PowerShellError:
    return PowerShellError(
        ErrorRecord(
            message,
            "System.Management.Automation.ParameterBindingException",
            identifier,
            "InvalidArgument",
            command=syntax.name,
        )
    )


def _missing_argument(syntax: Syntax, name: str) -> PowerShellError:
    return _binding_error(
        syntax,
        f"Missing an argument for parameter '{name}'. Specify a parameter of the right type and "
        "try again.",
        "MissingArgument",
    )


def _ambiguous(syntax: Syntax) -> PowerShellError:
    return _binding_error(
        syntax,
        "Parameter set cannot be resolved using the specified named parameters.",
        "AmbiguousParameterSet",
    )
