"""Blocks, their digests, and memory to hold them.

A block is 64 KiB, the unit of comparison and digest: small enough that a guest's scattered writes
do not drag much along, large enough that 16 bytes of digest per block are 0.25 MiB per GiB of
disk. Comparing and digesting release the interpreter lock, so a few threads use the machine's
cores.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections import defaultdict
from collections.abc import Iterator

from blake3 import blake3

BLOCK = 64 * 1024
"""Bytes of a block."""

DIGEST = 16
"""Bytes of a digest: BLAKE3 cut to 128 bits; both ends belong to the same run."""

ZERO_DIGEST = bytes(DIGEST)
"""Stands for a block of zeros, so that a sparse disk has a sparse manifest."""

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


class Buffer:
    """Page-aligned anonymous memory of `size` bytes, with its address for `memcmp`."""

    __slots__ = ("_memory", "address", "size", "view")

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self.size = size
        self.view = memoryview(self._memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))


class BufferPool:
    """Buffers of a few sizes, reused newest first so that clean pieces stay in the cache.

    The callers bound what is in use; the pool only keeps what is unused from piling up.

    Args:
        limit: Bytes above which unused buffers of other sizes are given back to the system.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._free: dict[int, list[Buffer]] = defaultdict(list)
        self._lock = threading.Lock()

    @staticmethod
    def size_for(length: int) -> int:
        """Bytes a buffer for `length` bytes takes: the next power of two, one block at least."""
        return max(BLOCK, 1 << (length - 1).bit_length())

    def acquire(self, length: int) -> Buffer:
        """A buffer of at least `length` bytes, content undefined."""
        size = self.size_for(length)
        with self._lock:
            if self._free[size]:
                return self._free[size].pop()
            self._give_back(size)
            self._total += size
        return Buffer(size)

    def release(self, buffer: Buffer) -> None:
        """Return a buffer that nothing refers to any more."""
        with self._lock:
            self._free[buffer.size].append(buffer)

    def _give_back(self, wanted: int) -> None:
        for unused in self._free.values():
            while unused and self._total + wanted > self._limit:
                self._total -= unused.pop().size


def same(first: int, second: int, length: int) -> bool:
    """Whether `length` bytes at two addresses are equal."""
    return bool(_memcmp(first, second, length) == 0)


def is_zero(buffer: Buffer, start: int, length: int) -> bool:
    """Whether `length` bytes of the buffer are all zero.

    The memory is compared with itself one byte on, which needs no second buffer of zeros.
    """
    if buffer.view[start]:
        return False
    address = buffer.address + start
    return length == 1 or same(address, address + 1, length - 1)


def block_count(length: int) -> int:
    """Blocks that `length` bytes from a block's start touch; the last may be partial."""
    return -(-length // BLOCK)


def digest_blocks(buffer: Buffer, start: int, length: int) -> bytes:
    """Digests of the blocks in `length` bytes of the buffer, one after the other."""
    return b"".join(_digests(buffer, start, length))


def _digests(buffer: Buffer, start: int, length: int) -> Iterator[bytes]:
    view = buffer.view
    end = start + length
    for position in range(start, end, BLOCK):
        stop = min(position + BLOCK, end)
        if is_zero(buffer, position, stop - position):
            yield ZERO_DIGEST
        else:
            yield blake3(view[position:stop]).digest(length=DIGEST)
