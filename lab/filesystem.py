"""Makes the disk images that the lab's machines start with.

A data disk holds a real ext4 with real files, made by ``mke2fs -d`` without mounting anything or
being root. Among the files are three that belong to the guest: ``records.log``, ``scratch.bin``
and ``guest.layout``. They are allocated in full, and ``debugfs`` tells where on the disk they lie,
so that the guest writes inside real files in place and ``e2fsck`` finds the file system clean at
any time. A second disk is mostly empty. `import_disk` turns an image that a user brings into one
for the lab.
"""

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.records import (
    BOOT_BLOCK,
    LAYOUT_ROOM,
    SLOT,
    Extents,
    Layout,
    empty_slot,
    pack_boot_block,
    pack_layout,
)
from lab.sparse import copy_file

MIB = 1 << 20
DEFAULT_RECORDS_BYTES = 32 * MIB
"""Ring of 8192 slots per disk: over five minutes of 50 records a second on two disks."""
DEFAULT_SCRATCH_BYTES = 64 * MIB

_TOOL_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_FOREIGN_FORMATS = {
    b"vhdxfile": "VHDX",
    b"QFI\xfb": "qcow2",
    b"KDMV": "sparse VMDK",
    b"conectix": "dynamic VHD",
}


class ImageError(Exception):
    """An image cannot be made or used; the message says why and what to do."""


def build_data_disk(
    image: Path,
    *,
    size_bytes: int,
    data_bytes: int,
    machine: str,
    disks: int = 1,
    seed: int = 1,
    records_bytes: int = DEFAULT_RECORDS_BYTES,
    scratch_bytes: int = DEFAULT_SCRATCH_BYTES,
) -> Layout:
    """Makes a sparse image of `size_bytes` with an ext4 of `data_bytes` of files: disk 0.

    The files are the same for the same seed. Takes about 4 s for 1 GiB on two cores.

    Raises:
        ImageError: the tools of e2fsprogs are missing, or the data does not fit.
    """
    rng = random.Random(seed)
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".tree-") as folder:
        tree = Path(folder)
        _write_guest_files(tree, records_bytes, scratch_bytes, rng)
        _write_user_files(tree, data_bytes, rng)
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-d", folder, str(image))
    places = {
        name: Extents(tuple(file_extents(image, name)))
        for name in ("records.log", "scratch.bin", "guest.layout")
    }
    layout = Layout(machine, 0, disks, places["records.log"], places["scratch.bin"])
    _write_layout(image, layout, places["guest.layout"])
    return layout


def build_empty_disk(
    image: Path,
    *,
    size_bytes: int,
    machine: str,
    index: int = 1,
    disks: int = 2,
    records_bytes: int = DEFAULT_RECORDS_BYTES,
    scratch_bytes: int = 0,
) -> Layout:
    """Makes a sparse image without a file system: a boot block, record slots, and nothing else."""
    start = MIB
    end = start + records_bytes
    scratch = ((end, scratch_bytes),) if scratch_bytes else ()
    if end + scratch_bytes > size_bytes:
        raise ImageError(f"{image.name}: {size_bytes} bytes are too few for the guest's areas")
    layout = Layout(machine, index, disks, Extents(((start, records_bytes),)), Extents(scratch))
    image.parent.mkdir(parents=True, exist_ok=True)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
        file.seek(start)
        for _ in range(records_bytes // SLOT):
            file.write(empty_slot())
    _write_layout(image, layout, Extents(((4096, LAYOUT_ROOM),)))
    return layout


def import_disk(source: Path, image: Path) -> int:
    """Copies a user's raw image or fixed VHD to a sparse raw image, and gives its size in bytes.

    A fixed VHD's footer is cut off. The size is rounded up to a whole MiB, as Azure's disks are.

    Raises:
        ImageError: the file is of a format that is not linear, or empty.
    """
    with source.open("rb") as file:
        head = file.read(512)
        for magic, name in _FOREIGN_FORMATS.items():
            if head.startswith(magic):
                raise ImageError(
                    f"{source} is a {name} image; convert it first: "
                    f"qemu-img convert -O raw {source} disk.raw"
                )
        size = file.seek(0, os.SEEK_END)
        if size >= 1024:
            file.seek(size - 512)
            if file.read(8) == b"conectix":
                size -= 512
    if size == 0:
        raise ImageError(f"{source} is empty")
    image.parent.mkdir(parents=True, exist_ok=True)
    whole = -(-size // MIB) * MIB
    copy_file(source, image)
    os.truncate(image, size)
    os.truncate(image, whole)
    return whole


def _write_guest_files(
    tree: Path, records_bytes: int, scratch_bytes: int, rng: random.Random
) -> None:
    """The guest's own files, without a zero block anywhere: ``mke2fs -d`` would make it a hole."""
    (tree / "guest.layout").write_bytes(b"\xa5" * LAYOUT_ROOM)
    with (tree / "records.log").open("wb") as file:
        for _ in range(records_bytes // SLOT):
            file.write(empty_slot())
    with (tree / "scratch.bin").open("wb") as file:
        for at in range(0, scratch_bytes, MIB):
            file.write(rng.randbytes(min(MIB, scratch_bytes - at)))


def _write_user_files(tree: Path, total: int, rng: random.Random) -> None:
    """Files of a plausible server: many small texts, fewer large binaries, half and half."""
    written = number = 0
    while written < total:
        folder = tree / f"srv/{number % 16:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        text = number % 8 != 0
        size = rng.randrange(20_000, 3 * MIB) if text else rng.randrange(4 * MIB, 24 * MIB)
        size = min(size, total - written)
        content = _text(size, rng) if text else rng.randbytes(size)
        (folder / f"{number:05d}.{'log' if text else 'bin'}").write_bytes(content)
        written += size
        number += 1


def _text(size: int, rng: random.Random) -> bytes:
    """Lines that compress several times, no two files alike."""
    lines = [
        f"{rng.getrandbits(40):010x} request {rng.randrange(10**6):06d} from host-{n % 97} served\n"
        for n in range(256)
    ]
    page = "".join(rng.choices(lines, k=512)).encode()
    return (page * (size // len(page) + 1))[:size]


def file_extents(image: Path, name: str) -> Iterator[tuple[int, int]]:
    """Where a file's bytes lie on the disk, from ``debugfs``: (offset, length) in order.

    Raises:
        ImageError: there is no such file, or it has a hole.
    """
    listing = _tool("debugfs", "-R", f"dump_extents /{name}", str(image))
    # Leaf rows read: level/levels entry/entries first - last physical - physical length
    rows = re.findall(r"(\d+)/ *(\d+) +\d+/ *\d+ +(\d+) - +(\d+) +(\d+) - +\d+ +(\d+)", listing)
    expected = 0
    for level, levels, first, _, physical, length in rows:
        if level != levels:
            continue
        if int(first) != expected:
            raise ImageError(f"{name} has a hole at block {expected}")
        expected += int(length)
        yield int(physical) * 4096, int(length) * 4096
    if not expected:
        raise ImageError(f"debugfs tells no extents of {name}: {listing.strip()}")


def _write_layout(image: Path, layout: Layout, place: Extents) -> None:
    pieces = list(place.locate(0, LAYOUT_ROOM))
    if len(pieces) != 1:
        raise ImageError("guest.layout is fragmented; it must be one extent")
    offset = pieces[0][0]
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(pack_layout(layout))
        # The first 1024 bytes of an ext4 belong to the boot loader, not to the file system.
        file.seek(0)
        file.write(pack_boot_block(offset)[:BOOT_BLOCK])


def _tool(name: str, *arguments: str) -> str:
    program = shutil.which(name, path=_TOOL_PATH)
    if program is None:
        raise ImageError(f"{name} is not installed; it comes with the package e2fsprogs")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{name} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
