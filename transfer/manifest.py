"""The manifest: one digest per block of a disk at a recovery point, and their root.

It proves equality and is the base of the next comparison. The digests are a sparse file (16 zero
bytes stand for a block of zeros), read and written in place, never held in memory. Above them is a
tree with 256 children per node, each level a file, so that a round's new root costs only what the
round touched.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from blake3 import blake3

from models.errors import StateCorrupt
from transfer.blocks import BLOCK, DIGEST, block_count
from transfer.files import full_disk_is_reported, open_private, replace_durably, write_all

FAN_OUT = 256
NODE_BYTES = FAN_OUT * DIGEST
"""What one node digests: the digests of 256 blocks (16 MiB of disk) or of 256 nodes below."""

_ZERO_NODE = bytes(NODE_BYTES)
_ROOT_NAME = b"failback manifest 1"


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    """What the digests are of.

    Attributes:
        size: Bytes of the disk.
        source_id: The recovery point all digests are of; None if there is none.
        complete: Whether every block of that recovery point has its digest here.
        root: Of the digests when the recovery point became durable, hexadecimal.
        writer: The run and layer that change the digests now; empty between rounds.
    """

    size: int
    source_id: str | None = None
    complete: bool = False
    root: str = ""
    writer: str = ""


class Manifest:
    """A disk's manifest, open for reading and writing.

    Args:
        directory: Where its files are.
        size: Bytes of the disk. A manifest of another size is begun anew: the disk was resized.

    Raises:
        StateCorrupt: If its header cannot be read.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._header_path = directory / "manifest.json"
        self.header = self._read_header(size)
        self._level_paths: list[Path] = []
        self._levels: list[int] = []
        self._stale_parents = set[int]()
        count = block_count(size)
        try:
            while True:
                self._open_level(len(self._levels), count)
                if count <= 1:
                    break
                count = -(-count // FAN_OUT)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files. May be called again."""
        for descriptor in self._levels:
            os.close(descriptor)
        self._levels = []

    @property
    def is_base(self) -> bool:
        """Whether it is the whole manifest of a recovery point, and nobody is changing it."""
        return self.header.complete and not self.header.writer

    def write_header(self, **changes: str | bool | None) -> None:
        """Change fields of the header, durably."""
        self.header = replace(self.header, **changes)  # type: ignore[arg-type]
        body = {"version": 1, "block": BLOCK, **asdict(self.header)}
        replace_durably(self._header_path, json.dumps(body, indent=1).encode() + b"\n")

    def digests(self, first_block: int, count: int) -> bytes:
        """Digests of blocks, one after the other."""
        return self._read(0, first_block, count)

    def next_data(self, offset: int) -> int:
        """First byte of the disk, from the block at `offset` on, that may be said to be data.

        Between the two all digests are a hole of the file: zeros.
        """
        try:
            place = os.lseek(self._levels[0], offset // BLOCK * DIGEST, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.header.size
            raise
        return max(offset, place // DIGEST * BLOCK)

    def store(self, first_block: int, digests: bytes) -> None:
        """Set the digests of consecutive blocks and of the nodes right above them."""
        self._write(0, first_block, digests)
        last = first_block + len(digests) // DIGEST - 1
        for node in range(first_block // FAN_OUT, last // FAN_OUT + 1):
            self._renew(1, node)

    def store_zeros(self, first_block: int, count: int) -> None:
        """Say that consecutive blocks are zeros; costs next to nothing where they were before."""
        stop = first_block + count
        while first_block < stop:
            node = first_block // FAN_OUT
            here = min(stop, (node + 1) * FAN_OUT) - first_block
            known = len(self._levels) < 2 or any(self._read(1, node, 1))
            if known and any(self.digests(first_block, here)):
                self.store(first_block, bytes(here * DIGEST))
            first_block += here

    def flush(self) -> None:
        """Make digests and the nodes right above durable; the rest can be worked out again."""
        for descriptor, path in zip(self._levels[:2], self._level_paths[:2], strict=True):
            with full_disk_is_reported(path):
                os.fdatasync(descriptor)

    def root(self) -> str:
        """The root over all blocks, hexadecimal; brings the upper levels up to date first."""
        stale = self._stale_parents
        for level in range(2, len(self._levels)):
            for node in sorted(stale):
                self._renew_from_below(level, node)
            stale = {node // FAN_OUT for node in stale}
        self._stale_parents = set()
        top = self._read(len(self._levels) - 1, 0, 1)
        head = self.header.size.to_bytes(8, "little") + BLOCK.to_bytes(4, "little")
        return blake3(_ROOT_NAME + head + top).hexdigest()

    def distrust_tree(self) -> None:
        """Have `root` work out all upper levels again: a killed attempt left them behind.

        The nodes right above the digests are written with them and need no repair.
        """
        nodes = -(-block_count(self.header.size) // FAN_OUT)
        self._stale_parents = set(range(-(-nodes // FAN_OUT)))

    def _renew(self, level: int, node: int) -> None:
        if level >= len(self._levels):
            return
        self._renew_from_below(level, node)
        self._stale_parents.add(node // FAN_OUT)

    def _renew_from_below(self, level: int, node: int) -> None:
        children = self._read(level - 1, node * FAN_OUT, FAN_OUT)
        digest = blake3(children).digest(length=DIGEST) if any(children) else bytes(DIGEST)
        self._write(level, node, digest)

    def _read(self, level: int, first: int, count: int) -> bytes:
        content = os.pread(self._levels[level], count * DIGEST, first * DIGEST)
        return content.ljust(count * DIGEST, b"\0")

    def _write(self, level: int, first: int, digests: bytes) -> None:
        write_all(self._levels[level], [digests], first * DIGEST, self._level_paths[level])

    def _open_level(self, level: int, count: int) -> None:
        path = self._directory / f"manifest.level-{level}"
        self._levels.append(open_private(path))
        self._level_paths.append(path)
        with full_disk_is_reported(path):
            if not self.header.source_id and not self.header.writer:
                os.ftruncate(self._levels[level], 0)
            os.ftruncate(self._levels[level], count * DIGEST)

    def _read_header(self, size: int) -> ManifestHeader:
        try:
            body = json.loads(self._header_path.read_bytes())
            header = ManifestHeader(
                size=body["size"],
                source_id=body["source_id"],
                complete=body["complete"],
                root=body["root"],
                writer=body["writer"],
            )
        except FileNotFoundError:
            return ManifestHeader(size)
        except (ValueError, KeyError, TypeError) as error:
            raise StateCorrupt(
                f"{self._header_path} cannot be read.",
                hint="Remove the disk's manifest files: the next round then compares everything.",
            ) from error
        return header if header.size == size else ManifestHeader(size)
