"""Members of values: properties and methods of .NET types as far as management scripts use them."""

import base64
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lab.hyperv.powershell.binding import ENUMERATIONS, enum
from lab.hyperv.powershell.syntax import parse
from lab.hyperv.powershell.values import (
    EnumMember,
    ErrorRecord,
    Hashtable,
    PowerShellError,
    PSObject,
    ScriptBlock,
    TypeReference,
    Value,
    as_list,
    equal,
    format_timespan,
    to_number,
    to_string,
)

if TYPE_CHECKING:
    from lab.hyperv.powershell.interpreter import Interpreter


class _Encoding(PSObject):
    """``[Text.Encoding]::UTF8`` and its kin; `codec` is Python's name for it."""

    def __init__(self, codec: str) -> None:
        super().__init__("System.Text.Encoding", [("WebName", codec)])
        self.codec = codec


_ENCODINGS = {"utf8": "utf-8", "unicode": "utf-16-le", "ascii": "ascii", "default": "cp1252"}


def get_member(interpreter: "Interpreter", owner: Value, name: str) -> Value:
    """``owner.name``; what does not exist is $null, as without strict mode."""
    lower = name.lower()
    if isinstance(owner, TypeReference):
        return _static_member(interpreter, owner.name, name)
    if isinstance(owner, Hashtable):
        if name in owner:
            return owner[name]
        if lower in ("keys", "values"):
            return [pair[lower == "values"] for pair in owner.items()]
        return len(owner) if lower in ("count", "length") else None
    if isinstance(owner, list):
        if lower in ("count", "length"):
            return len(owner)
        found = [get_member(interpreter, item, name) for item in owner]
        found = [item for value in found for item in as_list(value)]
        return found if len(found) > 1 else found[0] if found else None
    if isinstance(owner, PSObject):
        return _object_member(owner, name)
    if isinstance(owner, ErrorRecord):
        return _record_member(owner, lower)
    if isinstance(owner, str) and lower == "length":
        return len(owner)
    if lower in ("count", "length"):
        return 0 if owner is None else 1
    if isinstance(owner, datetime):
        return _date_member(owner, lower)
    if isinstance(owner, timedelta):
        return _timespan_member(owner, lower)
    if isinstance(owner, EnumMember) and lower == "value__":
        return owner.number
    if isinstance(owner, uuid.UUID) and lower == "guid":
        return str(owner)
    return None


def _object_member(owner: PSObject, name: str) -> Value:
    if name in owner.properties:
        return owner.properties[name]
    if name.lower() == "psobject":
        entries = [
            PSObject(
                "System.Management.Automation.PSNoteProperty", [("Name", key), ("Value", value)]
            )
            for key, value in owner.properties.items()
        ]
        return PSObject("System.Management.Automation.PSMemberSet", [("Properties", entries)])
    return 1 if name.lower() in ("count", "length") else None


def _record_member(record: ErrorRecord, name: str) -> Value:
    if name == "exception":
        properties = [("Message", record.message), ("HResult", record.hresult)]
        return PSObject(record.exception_type, properties, text=record.message)
    if name == "categoryinfo":
        category = EnumMember("ErrorCategory", record.category, 0)
        properties = [
            ("Category", category),
            ("Activity", record.command),
            ("Reason", record.exception_type.split(".")[-1]),
            ("TargetName", to_string(record.target)),
        ]
        reason = record.exception_type.split(".")[-1]
        words = f"{record.category}: ({to_string(record.target)}) [{record.command}], {reason}"
        return PSObject("System.Management.Automation.ErrorCategoryInfo", properties, text=words)
    return {
        "fullyqualifiederrorid": record.identifier,
        "targetobject": record.target,
        "scriptstacktrace": "at <ScriptBlock>, <No file>: line 1",
    }.get(name)


def _date_member(date: datetime, name: str) -> Value:
    if name == "ticks":
        return ticks(date)
    if name in ("year", "month", "day", "hour", "minute", "second"):
        return getattr(date, name)
    return {"date": date.replace(hour=0, minute=0, second=0, microsecond=0)}.get(name)


def _timespan_member(span: timedelta, name: str) -> Value:
    seconds = span.total_seconds()
    return {
        "totalseconds": seconds,
        "totalmilliseconds": seconds * 1000,
        "totalminutes": seconds / 60,
        "totalhours": seconds / 3600,
        "totaldays": seconds / 86400,
        "ticks": round(seconds * 10**7),
        "days": span.days,
        "hours": span.seconds // 3600,
        "minutes": span.seconds // 60 % 60,
        "seconds": span.seconds % 60,
        "milliseconds": span.microseconds // 1000,
    }.get(name)


def ticks(date: datetime) -> int:
    """100 ns steps since year 1, as .NET counts."""
    return (date - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10


def set_member(interpreter: "Interpreter", owner: Value, name: str, value: Value) -> None:
    """``owner.name = value``.

    Raises:
        PowerShellError: the object has no such property that could be set.
    """
    if isinstance(owner, Hashtable):
        owner[name] = value
    elif isinstance(owner, PSObject) and name in owner.properties:
        owner.properties[name] = value
    elif isinstance(owner, TypeReference):
        known = (owner.name.split(".")[-1].lower(), name.lower())
        if known == ("console", "outputencoding") and isinstance(value, _Encoding):
            interpreter.session.console_encoding = value.codec
    else:
        raise PowerShellError(
            ErrorRecord(
                f"The property '{name}' cannot be found on this object. Verify that the property "
                "exists and can be set.",
                identifier="PropertyNotFound",
                category="InvalidOperation",
            )
        )


def call_method(
    interpreter: "Interpreter", owner: Value, name: str, arguments: list[Value]
) -> Value:
    """``owner.name(arguments)``.

    Raises:
        PowerShellError: the type has no such method, as far as the lab knows it.
    """
    lower = name.lower()
    if owner is None:
        raise PowerShellError(
            ErrorRecord(
                "You cannot call a method on a null-valued expression.",
                identifier="InvokeMethodOnNull",
                category="InvalidOperation",
            )
        )
    if isinstance(owner, TypeReference):
        return _static_method(interpreter, owner.name, name, arguments)
    if isinstance(owner, PSObject):
        for known, method in owner.methods.items():
            if known.lower() == lower:
                return method(*arguments)
    if lower == "tostring":
        return format_value(owner, to_string(arguments[0])) if arguments else to_string(owner)
    if lower == "gettype":
        full = type_name(owner)
        return PSObject(
            "System.RuntimeType", [("FullName", full), ("Name", full.split(".")[-1])], text=full
        )
    if lower == "equals":
        return equal(owner, arguments[0])
    table = next((methods for kind, methods in _METHODS if isinstance(owner, kind)), {})
    if lower in table:
        return table[lower](owner, *arguments)
    raise _method_not_found(type_name(owner), name)


def _method_not_found(owner: str, name: str) -> PowerShellError:
    return PowerShellError(
        ErrorRecord(
            f"Method invocation failed because [{owner}] does not contain a method named '{name}'.",
            identifier="MethodNotFound",
            category="InvalidOperation",
        )
    )


def type_not_found(name: str) -> PowerShellError:
    return PowerShellError(
        ErrorRecord(
            f"Unable to find type [{name}].",
            identifier="TypeNotFound",
            category="InvalidOperation",
            target=name,
        )
    )


_STRING_METHODS: dict[str, Callable[..., Value]] = {
    "tolower": lambda text: text.lower(),
    "tolowerinvariant": lambda text: text.lower(),
    "toupper": lambda text: text.upper(),
    "toupperinvariant": lambda text: text.upper(),
    "trim": lambda text, chars=None: text.strip(chars),
    "trimstart": lambda text, chars=None: text.lstrip(chars),
    "trimend": lambda text, chars=None: text.rstrip(chars),
    "startswith": lambda text, start, *_: text.startswith(start),
    "endswith": lambda text, end, *_: text.endswith(end),
    "contains": lambda text, part: part in text,
    "replace": lambda text, old, new: text.replace(old, new),
    "split": lambda text, *separators: re.split(
        "|".join(re.escape(one) for item in separators for one in as_list(item)), text
    ),
    "substring": lambda text, start, length=None: (
        text[start:] if length is None else text[start : start + length]
    ),
    "indexof": lambda text, part: text.find(part),
    "padleft": lambda text, width, fill=" ": text.rjust(width, fill),
    "padright": lambda text, width, fill=" ": text.ljust(width, fill),
}
_HASHTABLE_METHODS: dict[str, Callable[..., Value]] = {
    "add": lambda table, key, value: table.__setitem__(key, value),
    "remove": lambda table, key: table.remove(key),
    "containskey": lambda table, key: key in table,
    "contains": lambda table, key: key in table,
    "clone": lambda table: Hashtable(table.items()),
}
_DATE_METHODS: dict[str, Callable[..., Value]] = {
    "touniversaltime": lambda date: date,
    "tolocaltime": lambda date: date,
    "addseconds": lambda date, count: date + timedelta(seconds=count),
    "addminutes": lambda date, count: date + timedelta(minutes=count),
    "addhours": lambda date, count: date + timedelta(hours=count),
    "adddays": lambda date, count: date + timedelta(days=count),
}
_ENCODING_METHODS: dict[str, Callable[..., Value]] = {
    "getbytes": lambda encoding, text: text.encode(encoding.codec),
    "getstring": lambda encoding, data: bytes(data).decode(encoding.codec),
}
_METHODS: list[tuple[type, dict[str, Callable[..., Value]]]] = [
    (str, _STRING_METHODS),
    (Hashtable, _HASHTABLE_METHODS),
    (datetime, _DATE_METHODS),
    (_Encoding, _ENCODING_METHODS),
]


def _static_member(interpreter: "Interpreter", owner: str, name: str) -> Value:
    short, lower = owner.split(".")[-1].lower(), name.lower()
    if short == "encoding" and lower in _ENCODINGS:
        return _Encoding(_ENCODINGS[lower])
    if short == "console":
        if lower == "in":
            return PSObject(
                "System.IO.TextReader",
                methods={"ReadToEnd": lambda: interpreter.session.standard_input()},
            )
        return _Encoding(interpreter.session.console_encoding)
    if short in ("datetime", "datetimeoffset") and lower in ("utcnow", "now"):
        return datetime.now(UTC)
    if short == "guid" and lower == "empty":
        return uuid.UUID(int=0)
    if short == "environment" and lower == "machinename":
        return interpreter.session.environment.get("COMPUTERNAME", "")
    if short in ("string",) and lower == "empty":
        return ""
    if short in ("int64", "long") and lower == "maxvalue":
        return 2**63 - 1
    known = {kind.lower(): kind for kind in ENUMERATIONS}
    if short in known:
        for member in ENUMERATIONS[known[short]]:
            if member.lower() == lower:
                return enum(known[short], member)
    if short in _STATIC_METHODS or short in known:
        return None
    raise type_not_found(owner)


def _static_method(
    interpreter: "Interpreter", owner: str, name: str, arguments: list[Value]
) -> Value:
    short, lower = owner.split(".")[-1].lower(), name.lower()
    if short == "console" and lower in ("writeline", "write"):
        ending = "\r\n" if lower == "writeline" else ""
        interpreter.session.output.write(to_string(arguments[0] if arguments else "") + ending)
        return None
    if short == "scriptblock" and lower == "create":
        root, source = parse(to_string(arguments[0]))
        return ScriptBlock(root, source)
    methods = _STATIC_METHODS.get(short)
    if methods is None:
        raise type_not_found(owner)
    if lower not in methods:
        raise _method_not_found(owner, name)
    return methods[lower](*arguments)


_STATIC_METHODS: dict[str, dict[str, Callable[..., Value]]] = {
    "convert": {
        "tobase64string": lambda data: base64.b64encode(bytes(data)).decode(),
        "frombase64string": lambda text: base64.b64decode(text),
        "toint32": lambda value: int(to_number(value)),
        "toint64": lambda value: int(to_number(value)),
        "tostring": to_string,
    },
    "guid": {
        "newguid": uuid.uuid4,
        "parse": lambda text: uuid.UUID(text),
    },
    "string": {
        "isnullorempty": lambda text: not text,
        "isnullorwhitespace": lambda text: not (text or "").strip(),
        "join": lambda separator, *items: separator.join(
            to_string(one) for item in items for one in as_list(item)
        ),
        "format": lambda template, *values: template,
    },
    "math": {
        "round": lambda value, digits=0: round(to_number(value), int(digits)),
        "floor": lambda value: int(to_number(value) // 1),
        "ceiling": lambda value: int(-(-to_number(value) // 1)),
        "max": lambda left, right: max(left, right),
        "min": lambda left, right: min(left, right),
        "abs": lambda value: abs(to_number(value)),
    },
    "path": {
        "getextension": lambda path: "." + path.rsplit(".", 1)[1] if "." in path else "",
        "getfilename": lambda path: re.split(r"[\\/]", path)[-1],
        "getfilenamewithoutextension": lambda path: re.split(r"[\\/]", path)[-1].rsplit(".", 1)[0],
        "getdirectoryname": lambda path: re.split(r"[\\/][^\\/]*$", path)[0],
        "combine": lambda *parts: "\\".join(part.strip("\\") for part in parts),
    },
    "datetime": {"parse": lambda text: parse_date(text)},
    "thread": {"sleep": lambda milliseconds: None},
}


def parse_date(words: str) -> datetime:
    """A date in ISO 8601 or US notation, UTC unless it says otherwise."""
    try:
        date = datetime.fromisoformat(words)
    except ValueError:
        try:
            date = datetime.strptime(words, "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
        except ValueError:
            raise PowerShellError(
                ErrorRecord(
                    f'Cannot convert value "{words}" to type "System.DateTime". Error: "String was '
                    'not recognized as a valid DateTime."',
                    "System.Management.Automation.PSInvalidCastException",
                    "InvalidCastParseTargetInvocation",
                    "InvalidArgument",
                )
            ) from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def format_value(value: Value, form: str) -> str:
    """``value.ToString(form)`` for the standard formats of dates, numbers and GUIDs."""
    if isinstance(value, datetime):
        if form in ("o", "O"):
            return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond * 10:07d}Z"
        if form in ("s", "u"):
            return value.strftime("%Y-%m-%dT%H:%M:%S" if form == "s" else "%Y-%m-%d %H:%M:%SZ")
        for token, code in _DATE_TOKENS:
            form = form.replace(token, code)
        return value.strftime(form)
    if isinstance(value, timedelta):
        return format_timespan(value)
    if isinstance(value, uuid.UUID):
        return {"N": value.hex, "B": f"{{{value}}}", "P": f"({value})"}.get(
            form.upper(), str(value)
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        kind, digits = form[0].lower(), form[1:]
        if kind == "x":
            word = f"{int(value):0{digits or 0}x}"
            return word.upper() if form[0] == "X" else word
        if kind in ("n", "f"):
            return f"{value:{',' if kind == 'n' else ''}.{digits or 2}f}"
        if kind == "d":
            return f"{int(value):0{digits or 0}d}"
        if re.fullmatch(r"0+", form):
            return f"{int(value):0{len(form)}d}"
    return to_string(value)


_DATE_TOKENS = (
    ("yyyy", "%Y"),
    ("MM", "%m"),
    ("dd", "%d"),
    ("HH", "%H"),
    ("mm", "%M"),
    ("ss", "%S"),
    ("fff", "%f"),
)


def type_name(value: Value) -> str:
    """The .NET name of a value's type."""
    if isinstance(value, PSObject):
        return value.type_name
    if isinstance(value, EnumMember):
        return f"Microsoft.HyperV.PowerShell.{value.type_name}"
    if isinstance(value, int) and not isinstance(value, bool):
        return "System.Int32" if -(2**31) <= value < 2**31 else "System.Int64"
    return next((name for kind, name in _NET_NAMES if isinstance(value, kind)), "System.Object")


_NET_NAMES: list[tuple[type, str]] = [
    (str, "System.String"),
    (bool, "System.Boolean"),
    (float, "System.Double"),
    (list, "System.Object[]"),
    (Hashtable, "System.Collections.Hashtable"),
    (datetime, "System.DateTime"),
    (timedelta, "System.TimeSpan"),
    (uuid.UUID, "System.Guid"),
    (bytes, "System.Byte[]"),
    (ErrorRecord, "System.Management.Automation.ErrorRecord"),
    (ScriptBlock, "System.Management.Automation.ScriptBlock"),
]
_SHORT_NAMES = {"int": "int32", "long": "int64", "bool": "boolean", "array": "object[]"}


def is_type(value: Value, name: str) -> bool:
    """``value -is [name]``, by the full or the last name; arrays are also lists."""
    wanted = name.lower()
    full = type_name(value).lower()
    wanted = _SHORT_NAMES.get(wanted, wanted)
    return wanted in (full, full.removeprefix("system."), full.split(".")[-1], "object") or (
        wanted in ("pscustomobject", "psobject") and full.endswith("pscustomobject")
    )
