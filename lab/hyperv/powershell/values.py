"""PowerShell's values and errors as Python objects, and its conversions between them.

Strings, numbers, booleans and $null are Python's own; arrays are lists; dates are aware datetimes,
time spans timedeltas, GUIDs UUIDs. What Python has no like of is here: objects with named
properties, hashtables that ignore case, enumeration members, error records.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Value = Any
"""Any value that a script can hold."""

GENERIC_FAILURE = -2146233088
"""HResult of an exception that has none of its own (COR_E_EXCEPTION)."""


@dataclass
class ErrorRecord:
    """What `$_` is in a catch block."""

    message: str
    exception_type: str = "System.Management.Automation.RuntimeException"
    identifier: str = "RuntimeException"
    category: str = "NotSpecified"
    target: Value = None
    hresult: int = GENERIC_FAILURE
    command: str = ""


class Leaving(Exception):
    """Control leaves a block; `output` is what the block had put out by then."""

    def __init__(self, output: Iterable[Value] = ()) -> None:
        super().__init__()
        self.output = list(output)


class PowerShellError(Leaving):
    """A terminating error on its way to the next catch block.

    One that is not `fatal` ends only its statement when nothing catches it and
    `$ErrorActionPreference` is not Stop.
    """

    def __init__(self, record: ErrorRecord, *, fatal: bool = False) -> None:
        super().__init__()
        self.record = record
        self.fatal = fatal

    def __str__(self) -> str:
        return self.record.message


class CmdletError(Exception):
    """What a cmdlet reports; `$ErrorActionPreference` decides whether it ends the script.

    `identifier` may lack the command's own part (",Microsoft.…"): the interpreter adds it.
    """

    def __init__(
        self,
        message: str,
        *,
        identifier: str,
        category: str = "InvalidArgument",
        exception_type: str = "Microsoft.HyperV.PowerShell.VirtualizationException",
        target: Value = None,
        hresult: int = GENERIC_FAILURE,
    ) -> None:
        super().__init__(message)
        self.record = ErrorRecord(message, exception_type, identifier, category, target, hresult)


@dataclass(frozen=True)
class EnumMember:
    """A member of a .NET enumeration: text to people, a number to ConvertTo-Json."""

    type_name: str
    name: str
    number: int

    def __str__(self) -> str:
        return self.name


class Hashtable:
    """An ordered dictionary whose string keys ignore case."""

    def __init__(self, items: Iterable[tuple[Value, Value]] = ()) -> None:
        self._items: dict[Value, tuple[Value, Value]] = {}
        for key, value in items:
            self[key] = value

    def __getitem__(self, key: Value) -> Value:
        return self._items.get(_fold(key), (key, None))[1]

    def __setitem__(self, key: Value, value: Value) -> None:
        self._items[_fold(key)] = (key, value)

    def __contains__(self, key: Value) -> bool:
        return _fold(key) in self._items

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterator[tuple[Value, Value]]:
        return iter(self._items.values())

    def remove(self, key: Value) -> None:
        self._items.pop(_fold(key), None)


class PSObject:
    """An object with named properties, optionally methods, and the words it becomes as a string."""

    def __init__(
        self,
        type_name: str,
        properties: Iterable[tuple[str, Value]] = (),
        *,
        text: str | None = None,
        methods: dict[str, Callable[..., Value]] | None = None,
    ) -> None:
        self.type_name = type_name
        self.properties = Hashtable(properties)
        self.text = text
        self.methods = methods or {}

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        if self.type_name == CUSTOM_OBJECT:
            pairs = (f"{name}={to_string(value)}" for name, value in self.properties.items())
            return "@{" + "; ".join(pairs) + "}"
        return self.type_name


CUSTOM_OBJECT = "System.Management.Automation.PSCustomObject"


@dataclass(frozen=True)
class TypeReference:
    """A type literal such as ``[Text.Encoding]``, without the brackets."""

    name: str


@dataclass
class ScriptBlock:
    """Code in braces, with the source it was cut from."""

    node: Any
    source: bytes


def _fold(key: Value) -> Value:
    return key.lower() if isinstance(key, str) else key


def to_string(value: Value) -> str:
    """The string that PowerShell makes of a value in an expandable string or a [string] cast."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, list):
        return " ".join(to_string(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return value.strftime("%m/%d/%Y %H:%M:%S")
    if isinstance(value, timedelta):
        return format_timespan(value)
    if isinstance(value, Hashtable):
        return "System.Collections.Hashtable"
    if isinstance(value, ErrorRecord):
        return value.message
    if isinstance(value, bytes):
        return " ".join(str(byte) for byte in value)
    if isinstance(value, TypeReference):
        return value.name
    return str(value)


def format_timespan(value: timedelta) -> str:
    """``[-][d.]hh:mm:ss[.fffffff]`` as TimeSpan.ToString() gives it."""
    ticks = round(abs(value).total_seconds() * 10**7)
    seconds, fraction = divmod(ticks, 10**7)
    days, seconds = divmod(seconds, 86400)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    sign = "-" if value < timedelta(0) else ""
    return sign + (f"{days}." if days else "") + text + (f".{fraction:07d}" if fraction else "")


def to_bool(value: Value) -> bool:
    """What a value counts for in a condition."""
    if isinstance(value, list):
        return to_bool(value[0]) if len(value) == 1 else bool(value)
    if isinstance(value, EnumMember):
        return value.number != 0
    if isinstance(value, (str, int, float)) or value is None:
        return bool(value)
    return True


_SUFFIXES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40, "pb": 1 << 50}
_NUMBER = re.compile(
    r"\s*(?P<sign>[+-]?)(?:(?P<hex>0x[0-9a-f]+)|(?P<digits>\d+(?:\.\d*)?|\.\d+)(?P<exp>e[+-]?\d+)?)"
    r"l?(?P<suffix>[kmgtp]b)?\s*",
    re.IGNORECASE,
)


def parse_number(text: str) -> int | float | None:
    """A number in PowerShell's notation (``5GB``, ``0x1F``, ``1.5``), None when it is none."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    number: int | float
    if match["hex"]:
        number = int(match["hex"], 16)
    elif match["exp"] or "." in match["digits"]:
        number = float(match["digits"] + (match["exp"] or ""))
    else:
        number = int(match["digits"])
    number *= _SUFFIXES[match["suffix"].lower()] if match["suffix"] else 1
    return -number if match["sign"] == "-" else number


def to_number(value: Value) -> int | float:
    """A value in arithmetic.

    Raises:
        PowerShellError: it is not a number.
    """
    if value is None:
        return 0
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, EnumMember):
        return value.number
    if isinstance(value, str):
        number = 0 if not value.strip() else parse_number(value)
        if number is not None:
            return number
    raise invalid_cast(value, "System.Int32", "Input string was not in a correct format.")


def invalid_cast(value: Value, target: str, why: str = "") -> PowerShellError:
    """The error of a conversion that does not work."""
    message = f'Cannot convert value "{to_string(value)}" to type "{target}".'
    return PowerShellError(
        ErrorRecord(
            f'{message} Error: "{why}"' if why else message,
            "System.Management.Automation.PSInvalidCastException",
            "InvalidCastFromStringToInteger" if "Int" in target else "ConvertToFinalInvalidCast",
            "InvalidArgument",
        )
    )


def as_list(value: Value) -> list[Value]:
    """What a value puts into a pipeline: an array's items, nothing for $null, else itself."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def collapse(items: list[Value]) -> Value:
    """What is left of a pipeline's output when it is assigned: $null, the one item, or an array."""
    return None if not items else items[0] if len(items) == 1 else items


def equal(left: Value, right: Value) -> bool:
    """``-eq`` between two scalars: the left side decides how to compare, strings ignore case."""
    if left is None or right is None:
        return left is right
    if isinstance(left, EnumMember):
        if isinstance(right, EnumMember):
            return left.number == right.number
        return (
            left.name.lower() == right.lower() if isinstance(right, str) else left.number == right
        )
    if isinstance(left, str):
        return left.lower() == to_string(right).lower()
    if isinstance(left, bool):
        return left == to_bool(right)
    if isinstance(left, (int, float)):
        try:
            return left == to_number(right)
        except PowerShellError:
            return False
    if isinstance(left, uuid.UUID):
        return str(left) == to_string(right).lower().strip("{}")
    return bool(left == right)


def order_key(value: Value) -> tuple[int, Value]:
    """A key that sorts mixed values the way Sort-Object does for like ones."""
    if value is None:
        return (0, 0)
    if isinstance(value, (bool, int, float)):
        return (1, value)
    if isinstance(value, EnumMember):
        return (1, value.number)
    if isinstance(value, (datetime, timedelta)):
        return (2, value)
    return (3, to_string(value).lower())
