"""The cmdlets that belong to PowerShell itself: pipelines, output, JSON, dates."""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from lab.hyperv.powershell.binding import parse_syntax
from lab.hyperv.powershell.expressions import compare
from lab.hyperv.powershell.json_text import from_json, to_json
from lab.hyperv.powershell.members import format_value, get_member, parse_date
from lab.hyperv.powershell.output import render
from lab.hyperv.powershell.session import Command, Invocation
from lab.hyperv.powershell.values import (
    CUSTOM_OBJECT,
    CmdletError,
    ErrorRecord,
    Hashtable,
    PowerShellError,
    PSObject,
    ScriptBlock,
    Value,
    as_list,
    collapse,
    order_key,
    to_bool,
    to_number,
    to_string,
)


def _property(invocation: Invocation, item: Value, selector: Value) -> Value:
    """A property by name, or the value of a script block or a calculated property for the item."""
    if isinstance(selector, Hashtable):
        selector = selector["Expression"] or selector["e"]
    if isinstance(selector, ScriptBlock):
        return collapse(invocation.interpreter.call(selector, variables={"_": item}))
    return get_member(invocation.interpreter, item, to_string(selector))


def _for_each(invocation: Invocation) -> Iterable[Value]:
    output: list[Value] = []
    interpreter = invocation.interpreter
    begin, process, end = (invocation.get(name) for name in ("Begin", "Process", "End"))
    if begin is not None:
        output += interpreter.call(begin)
    for item in invocation.piped or []:
        if invocation.given("MemberName"):
            output += as_list(get_member(interpreter, item, invocation.get("MemberName")))
        for block in as_list(process):
            output += interpreter.call(block, variables={"_": item})
    if end is not None:
        output += interpreter.call(end)
    return output


def _where(invocation: Invocation) -> Iterable[Value]:
    output = []
    for item in invocation.piped or []:
        if invocation.given("FilterScript"):
            block = invocation.get("FilterScript")
            keep = to_bool(collapse(invocation.interpreter.call(block, variables={"_": item})))
        else:
            value = get_member(invocation.interpreter, item, invocation.get("Property"))
            operators = [name for name in invocation.values if name not in ("Property", "Value")]
            keep = to_bool(
                compare(f"-{operators[0].lower()}", value, invocation.get("Value"))
                if operators
                else value
            )
        if keep:
            output.append(item)
    return output


def _select(invocation: Invocation) -> Iterable[Value]:
    items = list(invocation.piped or [])
    if invocation.given("Skip"):
        items = items[invocation.get("Skip") :]
    if invocation.given("First"):
        items = items[: invocation.get("First")]
    if invocation.given("Last"):
        items = items[-invocation.get("Last") :]
    if invocation.given("Index"):
        items = [items[at] for at in invocation.get("Index") if at < len(items)]
    if invocation.given("ExpandProperty"):
        name = invocation.get("ExpandProperty")
        items = [one for item in items for one in as_list(_property(invocation, item, name))]
    elif invocation.given("Property"):
        items = [_selected(invocation, item) for item in items]
    if invocation.given("Unique"):
        seen: dict[str, Value] = {}
        for item in items:
            seen.setdefault(to_string(item), item)
        items = list(seen.values())
    return items


def _selected(invocation: Invocation, item: Value) -> PSObject:
    properties: list[tuple[str, Value]] = []
    for selector in as_list(invocation.get("Property")):
        if isinstance(selector, Hashtable):
            name = to_string(selector["Name"] or selector["Label"] or selector["n"])
            properties.append((name, _property(invocation, item, selector)))
        elif to_string(selector) == "*" and isinstance(item, PSObject):
            properties += list(item.properties.items())
        else:
            name = to_string(selector)
            properties.append((name, _property(invocation, item, name)))
    return PSObject(CUSTOM_OBJECT, properties)


def _sort(invocation: Invocation) -> Iterable[Value]:
    selectors = as_list(invocation.get("Property"))
    items = list(invocation.piped or [])
    if selectors:
        items.sort(key=lambda item: [order_key(_property(invocation, item, s)) for s in selectors])
    else:
        items.sort(key=order_key)
    if invocation.get("Descending"):
        items.reverse()
    if invocation.get("Unique"):
        items = list({to_string(item).lower(): item for item in items}.values())
    return items


def _measure(invocation: Invocation) -> Iterable[Value]:
    items = list(invocation.piped or [])
    selectors = as_list(invocation.get("Property"))
    if selectors:
        items = [_property(invocation, item, selectors[0]) for item in items]
    numbers = [to_number(item) for item in items] if len(invocation.values) else []
    properties: list[tuple[str, Value]] = [("Count", len(items))]
    functions: dict[str, Callable[[list[int | float]], Value]] = {
        "Average": lambda found: sum(found) / len(found) if found else None,
        "Sum": sum,
        "Maximum": lambda found: max(found, default=None),
        "Minimum": lambda found: min(found, default=None),
    }
    for name, function in functions.items():
        properties.append((name, function(numbers) if invocation.get(name) else None))
    return [PSObject("Microsoft.PowerShell.Commands.GenericMeasureInfo", properties)]


def _convert_to_json(invocation: Invocation) -> Iterable[Value]:
    if invocation.given("InputObject"):
        value = invocation.get("InputObject")
    else:
        value = collapse(list(invocation.piped or []))
        if value is None and not invocation.piped:
            return []
    depth, compress = invocation.get("Depth", 2), bool(invocation.get("Compress"))
    return [to_json(value, depth=depth, compress=compress)]


def _convert_from_json(invocation: Invocation) -> Iterable[Value]:
    words = invocation.get("InputObject")
    words = "\n".join(to_string(one) for one in invocation.piped or []) if words is None else words
    try:
        return [from_json(words)]
    except ValueError as error:
        raise CmdletError(
            f"Invalid JSON primitive: {error}.",
            identifier="System.ArgumentException",
            exception_type="System.ArgumentException",
        ) from None


def _write_output(invocation: Invocation) -> Iterable[Value]:
    if invocation.given("InputObject"):
        return as_list(invocation.get("InputObject"))
    return invocation.piped or []


def _write_host(invocation: Invocation) -> Iterable[Value]:
    words = " ".join(to_string(item) for item in as_list(invocation.get("Object")))
    invocation.interpreter.session.output.write(words + "\r\n")
    return []


def _write_error(invocation: Invocation) -> Iterable[Value]:
    message = to_string(invocation.get("Message") or invocation.get("Exception"))
    raise CmdletError(
        message,
        identifier=to_string(invocation.get("ErrorId")) or "Microsoft.PowerShell.Commands.Write",
        category="NotSpecified",
        exception_type="Microsoft.PowerShell.Commands.WriteErrorException",
    )


def _nothing(invocation: Invocation) -> Iterable[Value]:
    return []


def _out_string(invocation: Invocation) -> Iterable[Value]:
    return ["".join(render(item) + "\r\n" for item in invocation.piped or [])]


def _get_date(invocation: Invocation) -> Iterable[Value]:
    given = invocation.get("Date")
    date = datetime.now(UTC) if given is None else given
    if isinstance(date, str):
        date = parse_date(date)
    form = invocation.get("Format") or invocation.get("UFormat")
    return [format_value(date, form) if form else date]


def _invoke_expression(invocation: Invocation) -> Iterable[Value]:
    words = invocation.get("Command")
    words = to_string(collapse(list(invocation.piped or []))) if words is None else words
    return invocation.interpreter.run(to_string(words))


def _new_object(invocation: Invocation) -> Iterable[Value]:
    name = to_string(invocation.get("TypeName"))
    if name.split(".")[-1].lower() not in ("psobject", "pscustomobject"):
        raise PowerShellError(
            ErrorRecord(
                f"Cannot find type [{name}]: verify that the assembly containing this type is "
                "loaded.",
                "System.Management.Automation.PSArgumentException",
                "TypeNotFound,Microsoft.PowerShell.Commands.NewObjectCommand",
                "InvalidType",
            )
        )
    given = invocation.get("Property")
    return [PSObject(CUSTOM_OBJECT, given.items() if given else [])]


def _start_sleep(invocation: Invocation) -> Iterable[Value]:
    seconds = invocation.get("Seconds", 0) + invocation.get("Milliseconds", 0) / 1000
    threading.Event().wait(seconds)
    return []


def _join_path(invocation: Invocation) -> Iterable[Value]:
    path = to_string(invocation.get("Path")).rstrip("\\")
    return [path + "\\" + to_string(invocation.get("ChildPath")).strip("\\")]


def _split_path(invocation: Invocation) -> Iterable[Value]:
    parent, _, leaf = to_string(invocation.get("Path")).rstrip("\\").rpartition("\\")
    if len(parent) == 2:
        parent += "\\"
    return [leaf if invocation.get("Leaf") else parent]


_ITEM = "[-InputObject <Object>]"
_Builtin = tuple[str, dict[str, str], Callable[[Invocation], Iterable[Value]], tuple[str, ...]]
_BUILTINS: list[_Builtin] = [
    (
        "ForEach-Object",
        {
            "ScriptBlockSet": "[-Process] <ScriptBlock[]> [-Begin <ScriptBlock>] "
            "[-End <ScriptBlock>]",
            "PropertyAndMethodSet": "[-MemberName] <String> [-ArgumentList <Object[]>]",
        },
        _for_each,
        ("%", "foreach"),
    ),
    (
        "Where-Object",
        {
            "ScriptBlockSet": "[-FilterScript] <ScriptBlock>",
            **{
                f"{name}Set": f"[-Property] <String> [[-Value] <Object>] -{name}"
                for name in (
                    *("EQ", "NE", "GT", "GE", "LT", "LE", "Like", "NotLike"),
                    *("Match", "NotMatch", "Contains", "NotContains", "In", "NotIn"),
                )
            },
            "TruthSet": "[-Property] <String>",
        },
        _where,
        ("?", "where"),
    ),
    (
        "Select-Object",
        {
            "DefaultParameter": "[[-Property] <Object[]>] [-ExcludeProperty <String[]>] "
            "[-ExpandProperty <String>] [-Unique] [-Last <Int32>] [-First <Int32>] [-Skip <Int32>] "
            "[-Wait]",
            "IndexParameter": "[-Unique] [-Wait] [-Index <Int32[]>]",
        },
        _select,
        ("select",),
    ),
    (
        "Sort-Object",
        {"Default": "[[-Property] <Object[]>] [-Descending] [-Unique] [-CaseSensitive]"},
        _sort,
        ("sort",),
    ),
    (
        "Measure-Object",
        {"Generic": "[[-Property] <String[]>] [-Sum] [-Average] [-Maximum] [-Minimum]"},
        _measure,
        ("measure",),
    ),
    (
        "ConvertTo-Json",
        {"Default": "[[-InputObject] <Object>] [-Depth <Int32>] [-Compress]"},
        _convert_to_json,
        (),
    ),
    ("ConvertFrom-Json", {"Default": "[[-InputObject] <String>]"}, _convert_from_json, ()),
    (
        "Write-Output",
        {"Default": "[[-InputObject] <Object>] [-NoEnumerate]"},
        _write_output,
        ("echo", "write"),
    ),
    (
        "Write-Host",
        {"Default": "[[-Object] <Object>] [-NoNewline] [-ForegroundColor <String>]"},
        _write_host,
        (),
    ),
    (
        "Write-Error",
        {"NoException": "[-Message] <String> [-ErrorId <String>] [-Category <String>]"},
        _write_error,
        (),
    ),
    ("Write-Verbose", {"Default": "[-Message] <String>"}, _nothing, ()),
    ("Write-Warning", {"Default": "[-Message] <String>"}, _nothing, ()),
    (
        "Write-Progress",
        {"Default": "[-Activity] <String> [[-Status] <String>] [-PercentComplete <Int32>]"},
        _nothing,
        (),
    ),
    ("Out-Null", {"Default": _ITEM}, _nothing, ()),
    ("Out-String", {"Default": f"{_ITEM} [-Width <Int32>] [-Stream]"}, _out_string, ()),
    (
        "Get-Date",
        {"Default": "[[-Date] <Object>] [-Format <String>] [-UFormat <String>]"},
        _get_date,
        (),
    ),
    ("Invoke-Expression", {"Default": "[[-Command] <String>]"}, _invoke_expression, ("iex",)),
    (
        "New-Object",
        {"Net": "[-TypeName] <String> [[-ArgumentList] <Object[]>] [-Property <Hashtable>]"},
        _new_object,
        (),
    ),
    (
        "Start-Sleep",
        {"Seconds": "[-Seconds] <Int32>", "Milliseconds": "-Milliseconds <Int32>"},
        _start_sleep,
        ("sleep",),
    ),
    ("Set-StrictMode", {"Version": "-Version <Object>", "Off": "-Off"}, _nothing, ()),
    (
        "Import-Module",
        {"Name": "[-Name] <String[]> [-Force] [-PassThru] [-DisableNameChecking]"},
        _nothing,
        ("ipmo",),
    ),
    ("Join-Path", {"Default": "[-Path] <String> [-ChildPath] <String>"}, _join_path, ()),
    (
        "Split-Path",
        {
            "ParentSet": "[-Path] <String> [-Parent]",
            "LeafSet": "[-Path] <String> -Leaf",
        },
        _split_path,
        (),
    ),
]


def builtin_commands() -> dict[str, Command]:
    """The commands by lower-case name and alias."""
    commands: dict[str, Command] = {}
    for name, sets, function, aliases in _BUILTINS:
        command = Command(parse_syntax(name, sets), function)
        commands.update({key.lower(): command for key in (name, *aliases)})
    return commands
