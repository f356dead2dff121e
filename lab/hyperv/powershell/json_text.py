"""``ConvertTo-Json`` and ``ConvertFrom-Json`` of Windows PowerShell 5.1, with its traps.

Enumerations become numbers, dates ``\\/Date(ms)\\/``, what lies deeper than ``-Depth`` becomes a
string, and ``< > & '`` are escaped.
"""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta

from lab.hyperv.powershell.members import type_name
from lab.hyperv.powershell.values import (
    CUSTOM_OBJECT,
    EnumMember,
    ErrorRecord,
    Hashtable,
    PSObject,
    Value,
    to_string,
)

_ESCAPED = re.compile(r"[<>&'\u0085\u2028\u2029]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(value: Value, *, depth: int, compress: bool) -> str:
    """The JSON text of a value."""
    plain = _plain(value, depth)
    if compress:
        words = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    else:
        words = json.dumps(plain, ensure_ascii=False, indent=4).replace("\n", "\r\n")
        words = words.replace('": ', '":  ')
    words = re.sub(r"/Date\((-?\d+)\)/", r"\\/Date(\1)\\/", words)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", words)


def _plain(value: Value, depth: int) -> Value:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, EnumMember):
        return value.number
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        return f"/Date({(value - _EPOCH) // timedelta(milliseconds=1)})/"
    if depth < 0:
        return to_string(value)
    if isinstance(value, (list, bytes)):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, timedelta):
        return _timespan(value)
    if isinstance(value, Hashtable):
        return {to_string(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, PSObject):
        return {to_string(key): _plain(item, depth - 1) for key, item in value.properties.items()}
    if isinstance(value, ErrorRecord):
        return {"Exception": value.message, "FullyQualifiedErrorId": value.identifier}
    return {"Type": type_name(value), "Text": to_string(value)}


def _timespan(span: timedelta) -> dict[str, Value]:
    seconds = span.total_seconds()
    return {
        "Ticks": round(seconds * 10**7),
        "Days": span.days,
        "Hours": span.seconds // 3600,
        "Milliseconds": span.microseconds // 1000,
        "Minutes": span.seconds // 60 % 60,
        "Seconds": span.seconds % 60,
        "TotalDays": seconds / 86400,
        "TotalHours": seconds / 3600,
        "TotalMilliseconds": seconds * 1000,
        "TotalMinutes": seconds / 60,
        "TotalSeconds": seconds,
    }


def from_json(words: str) -> Value:
    """JSON text to objects and arrays.

    Raises:
        ValueError: it is not JSON.
    """
    return _powershell(json.loads(words))


def _powershell(value: Value) -> Value:
    if isinstance(value, dict):
        return PSObject(CUSTOM_OBJECT, [(key, _powershell(item)) for key, item in value.items()])
    if isinstance(value, list):
        return [_powershell(item) for item in value]
    return value
