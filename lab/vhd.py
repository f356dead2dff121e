"""The 512-byte footer of a fixed VHD, by the Virtual Hard Disk Image Format Specification."""

import struct
import time
import uuid
from dataclasses import dataclass

FOOTER = 512
COOKIE = b"conectix"
# Cookie, features, version, data offset, time, creator, its version and host, original and current
# size, geometry (cylinders, heads, sectors), type, checksum, unique id, saved state.
_FIELDS = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_CHECKSUM_AT = 64
EPOCH = 946_684_800
"""2000-01-01 in Unix time: VHD counts seconds from there."""
_FIXED = 2
_MAX_SECTORS = 65535 * 16 * 255


@dataclass(frozen=True)
class Footer:
    """What the lab needs of a footer. `size_bytes` is the disk's, without the footer."""

    size_bytes: int
    identifier: uuid.UUID
    disk_type: int


def pack_footer(size_bytes: int, identifier: uuid.UUID, created: float | None = None) -> bytes:
    """The footer of a fixed disk; `created` in seconds since 1970, now unless given."""
    at = time.time() if created is None else created
    cylinders, heads, sectors = geometry(size_bytes)
    footer = bytearray(
        _FIELDS.pack(
            COOKIE,
            2,
            0x00010000,
            0xFFFFFFFFFFFFFFFF,
            max(0, int(at) - EPOCH),
            b"win ",
            0x000A0000,
            b"Wi2k",
            size_bytes,
            size_bytes,
            cylinders,
            heads,
            sectors,
            _FIXED,
            0,
            identifier.bytes,
            0,
        ).ljust(FOOTER, b"\0")
    )
    footer[_CHECKSUM_AT : _CHECKSUM_AT + 4] = struct.pack(">I", _checksum(footer))
    return bytes(footer)


def parse_footer(footer: bytes) -> Footer | None:
    """The footer's fields, None when the bytes are not a valid footer."""
    if len(footer) != FOOTER or not footer.startswith(COOKIE):
        return None
    fields = _FIELDS.unpack_from(footer)
    if fields[14] != _checksum(footer):
        return None
    return Footer(fields[9], uuid.UUID(bytes=fields[15]), fields[13])


def _checksum(footer: bytes | bytearray) -> int:
    return ~(sum(footer) - sum(footer[_CHECKSUM_AT : _CHECKSUM_AT + 4])) & 0xFFFFFFFF


def geometry(size_bytes: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors per track by the specification's own procedure."""
    total = min(size_bytes // 512, _MAX_SECTORS)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return total // sectors // heads, heads, sectors
    sectors = 17
    tracks = total // sectors
    heads = max((tracks + 1023) // 1024, 4)
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return tracks // heads, heads, sectors
