"""Sizes, rates and durations as people type them, kept as bytes, bytes per second and seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    # Link speeds are quoted in bits per second.
    "kbit": 125,
    "mbit": 125_000,
    "gbit": 125_000_000,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: Any) -> Any:
    """`"100MiB"`, `"1.5 GiB/s"`, `"200Mbit/s"` or a number of bytes; others are pydantic's."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([\d.]+)\s*([a-zA-Z]*)\s*(?:/\s*s)?\s*", value)
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is not a size; write for example 100MiB, 2GiB or 200Mbit/s")
    return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_duration(value: Any) -> Any:
    """`"90s"`, `"5m"`, `"1h30m"` or a number of seconds; others are left to pydantic."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "")
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise ValueError(f"{value!r} is not a duration; write for example 90s, 5m or 1h30m")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def human_size(size: float) -> str:
    """Bytes for people: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_duration(seconds: float) -> str:
    """Seconds for people: `1 h 02 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


ByteSize = Annotated[
    int,
    BeforeValidator(
        parse_size, json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field()]
    ),
    Field(ge=0),
]
"""Bytes (or bytes per second); a string with a unit is accepted."""

Seconds = Annotated[
    float,
    BeforeValidator(
        parse_duration,
        json_schema_input_type=Annotated[float, Field(ge=0)] | Annotated[str, Field()],
    ),
    Field(ge=0),
]
"""Seconds; a string such as `5m` is accepted."""
