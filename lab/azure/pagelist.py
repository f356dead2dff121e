"""Page lists: the XML that tells which pages hold data or were cleared, a page of it at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

from lab.azure.errors import StorageError

Ranges = Iterable[tuple[int, int, bool]]


def position(marker: str) -> int:
    """The offset that a marker stands for; no marker is the beginning."""
    if not marker:
        return 0
    try:
        return int(base64.urlsafe_b64decode(marker.encode()).decode().removeprefix("at:"))
    except (ValueError, binascii.Error) as error:
        message = "Value for one of the query parameters specified is invalid: marker."
        raise StorageError(400, "InvalidQueryParameterValue", message) from error


def limit(asked: str | None, most: int) -> int:
    """How many ranges one page may hold. Raises :class:`StorageError` for nonsense."""
    if asked is None:
        return most
    if not asked.isdigit() or int(asked) < 1:
        message = "One of the query parameters is outside the permissible range: maxresults."
        raise StorageError(400, "OutOfRangeQueryParameterValue", message)
    return min(int(asked), most)


def document(ranges: Ranges, most: int) -> bytes:
    """At most ``most`` of ``ranges`` (start, end, cleared) as XML, with a marker if more follow."""
    parts = ['<?xml version="1.0" encoding="utf-8"?><PageList>']
    marker = ""
    for count, (start, end, cleared) in enumerate(ranges):
        if count == most:
            marker = base64.urlsafe_b64encode(f"at:{start}".encode()).decode()
            break
        tag = "ClearRange" if cleared else "PageRange"
        parts.append(f"<{tag}><Start>{start}</Start><End>{end - 1}</End></{tag}>")
    parts.append(f"<NextMarker>{marker}</NextMarker>" if marker else "<NextMarker />")
    parts.append("</PageList>")
    return "".join(parts).encode()


def silenced(
    ranges: Ranges, offset: int | None, length: int | None
) -> Iterator[tuple[int, int, bool]]:
    """``ranges`` without [offset, offset+length), or without the first when no offset is given."""
    if offset is None:
        everything = iter(ranges)
        next(everything, None)
        yield from everything
        return
    end_of_lie = offset + (length if length is not None else 1)
    for start, end, cleared in ranges:
        if start < min(end, offset):
            yield start, min(end, offset), cleared
        if max(start, end_of_lie) < end:
            yield max(start, end_of_lie), end, cleared
