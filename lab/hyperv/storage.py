"""The host's volumes and disk images: Windows paths, fixed VHDs, layers, and the mover's devices.

A fixed ``.vhd`` is the disk's bytes followed by a footer. While it is attached to the running
mover the footer is cut off, so that the mover sees a device of exactly the disk's size; it is put
back when the disk is detached. Other formats are kept as raw payload (see
`lab.hyperv.model.Image`).
"""

import logging
import os
import re
import uuid
from pathlib import Path

from lab.hyperv.disks import ImageDisk, LayerDisk
from lab.hyperv.model import HostState, Image, Machine, Store
from lab.records import Disk
from lab.sparse import copy_file
from lab.vhd import FOOTER, Footer, pack_footer, parse_footer

_log = logging.getLogger(__name__)
_ABSOLUTE = re.compile(r"([A-Za-z]):[\\/](.*)", re.DOTALL)


class StorageError(Exception):
    """A path or an image is not usable; `kind` is "missing", "exists", "space" or "invalid"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Storage:
    """The files below ``DIR/hyperv/volumes`` and ``DIR/devices``."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._volumes = directory / "hyperv" / "volumes"
        self._layers = directory / "hyperv" / "layers"
        self._devices = directory / "devices"
        self._store = store

    def local(self, path: str) -> Path:
        """The file behind a Windows path; names are found whatever their case.

        Raises:
            StorageError: the path is not absolute, or its volume does not exist.
        """
        match = _ABSOLUTE.fullmatch(path.strip())
        volumes = {name.upper() for name in self._store.state.volumes}
        if match is None or match[1].upper() not in volumes:
            raise StorageError("missing", f"Cannot find drive or path '{path}'.")
        at = self._volumes / match[1].upper()
        for part in re.split(r"[\\/]+", match[2].strip("\\/")):
            if part in ("", "."):
                continue
            if part == "..":
                raise StorageError("invalid", f"The path '{path}' is not canonical.")
            at = _child(at, part)
        return at

    def used_bytes(self, volume: str) -> int:
        """Bytes that a volume's files occupy: fixed disks in full, growing ones what they hold."""
        total = 0
        for folder, _, names in os.walk(self._volumes / volume):
            for name in names:
                status = (Path(folder) / name).stat()
                fixed = name.lower().endswith(".vhd")
                total += status.st_size if fixed else min(status.st_blocks * 512, status.st_size)
        return total

    def free_bytes(self, volume: str) -> int:
        capacity = self._store.state.volumes[volume].size_bytes
        return max(0, capacity - self.used_bytes(volume))

    def describe(self, path: str) -> Image:
        """What an image is, from its footer or from the host's memory.

        Raises:
            StorageError: there is no such file, or it is no disk image.
        """
        file = self.local(path)
        if not file.is_file():
            raise StorageError("missing", f"The system cannot find the file '{path}'.")
        known = self._store.state.images.get(key(path))
        if known is not None:
            return known
        if path.lower().endswith(".vhd"):
            footer = read_footer(file)
            if footer is None:
                raise StorageError("invalid", f"The file '{path}' is corrupted: it has no footer.")
            return Image(path=path, size_bytes=footer.size_bytes, identifier=str(footer.identifier))
        if not path.lower().endswith((".vhdx", ".avhdx")):
            raise StorageError("invalid", f"The file '{path}' is not a virtual hard disk.")
        image = Image(path=path, size_bytes=file.stat().st_size, identifier=str(uuid.uuid4()))
        with self._store.change() as state:
            state.images[key(path)] = image
        return image

    def create(self, path: str, size_bytes: int, *, fixed: bool, logical_sector: int) -> None:
        """Makes an empty image.

        Raises:
            StorageError: it exists, its folder does not, or the volume is full.
        """
        file = self.local(path)
        if file.exists():
            raise StorageError("exists", f"The file '{path}' exists.")
        if not file.parent.is_dir():
            raise StorageError("missing", f"The system cannot find the path of '{path}'.")
        if fixed and size_bytes + FOOTER > self.free_bytes(path[0].upper()):
            raise StorageError("space", "There is not enough space on the disk.")
        identifier = uuid.uuid4()
        if path.lower().endswith(".vhd"):
            write_vhd(file, size_bytes, identifier)
            return
        image = Image(
            path=path,
            size_bytes=size_bytes,
            identifier=str(identifier),
            kind="Fixed" if fixed else "Dynamic",
            logical_sector=logical_sector,
        )
        with self._store.change() as state:
            state.images[key(path)] = image
        with file.open("wb") as created:
            created.truncate(size_bytes)

    def forget(self, path: str) -> None:
        """Drops what is remembered of an image whose file has been deleted."""
        with self._store.change() as state:
            state.images.pop(key(path), None)

    def resize(self, path: str, size_bytes: int) -> None:
        """Makes an image larger or smaller, footer included."""
        image = self.describe(path)
        file = self.local(path)
        if path.lower().endswith(".vhd"):
            os.truncate(file, size_bytes)
            with file.open("ab") as grown:
                grown.write(pack_footer(size_bytes, uuid.UUID(image.identifier)))
            return
        with self._store.change() as state:
            state.images[key(path)].size_bytes = size_bytes
        os.truncate(file, size_bytes)

    def reset_identifier(self, path: str) -> None:
        """Gives an image a new unique id."""
        image, identifier = self.describe(path), uuid.uuid4()
        if path.lower().endswith(".vhd"):
            with self.local(path).open("r+b") as file:
                file.seek(image.size_bytes)
                file.write(pack_footer(image.size_bytes, identifier))
            return
        with self._store.change() as state:
            state.images[key(path)].identifier = str(identifier)

    def open(self, path: str) -> Disk:
        """The disk in an image, through all of its layers."""
        image = self.describe(path)
        if image.parent is None:
            return ImageDisk(self.local(path), image.size_bytes)
        return LayerDisk(self.open(image.parent), self.local(path), self._map_file(image))

    def add_layer(self, parent: str, state: HostState) -> str:
        """Makes a differencing image over another one, within a change of state; gives its path."""
        below = self.describe(parent)
        stem = re.sub(r"(_[0-9A-F-]{36})?\.[^.\\]*$", "", parent)
        path = f"{stem}_{str(uuid.uuid4()).upper()}.avhdx"
        image = Image(
            path=path,
            size_bytes=below.size_bytes,
            identifier=str(uuid.uuid4()),
            kind="Differencing",
            parent=parent,
            logical_sector=below.logical_sector,
        )
        LayerDisk.create(self.local(path), self._map_file(image), image.size_bytes)
        state.images[key(path)] = image
        return path

    def delete_layer(self, path: str) -> None:
        """Deletes a differencing image's files, if they are still there."""
        self.local(path).unlink(missing_ok=True)
        known = self._store.state.images.get(key(path))
        if known is not None:
            self._map_file(known).unlink(missing_ok=True)

    def delete_unknown_layers(self) -> None:
        """Deletes layer files that nothing is remembered of: their making was cut short."""
        known = {str(self.local(image.path)) for image in self._store.state.images.values()}
        for file in self._volumes.rglob("*.avhdx"):
            if str(file) not in known:
                file.unlink()

    def _map_file(self, image: Image) -> Path:
        return self._layers / f"{image.identifier}.map"

    def expose(self, path: str) -> None:
        """Cuts a fixed VHD's footer off, having remembered it."""
        file = self.local(path)
        if not path.lower().endswith(".vhd"):
            return
        if key(path) not in self._store.state.images:
            footer = read_footer(file)
            if footer is None:
                raise StorageError("invalid", f"The file '{path}' is corrupted: it has no footer.")
            with self._store.change() as state:
                state.images[key(path)] = Image(
                    path=path,
                    size_bytes=footer.size_bytes,
                    identifier=str(footer.identifier),
                    footer=_last(file).hex(),
                )
        os.truncate(file, self._store.state.images[key(path)].size_bytes)

    def conceal(self, path: str) -> None:
        """Puts a fixed VHD's footer back; nothing happens to an image that has it."""
        image = self._store.state.images.get(key(path))
        if image is None or image.footer is None:
            return
        file = self.local(path)
        if file.stat().st_size > image.size_bytes + FOOTER:
            _log.error("%s was written past its end; what was beyond is cut off", path)
        with file.open("r+b") as payload:
            payload.truncate(image.size_bytes)
            payload.seek(image.size_bytes)
            payload.write(bytes.fromhex(image.footer))
        with self._store.change() as state:
            del state.images[key(path)]

    def link_devices(self, machines: list[Machine]) -> None:
        """Makes ``DIR/devices`` show exactly the disks of the running movers."""
        for machine in machines:
            folder = self._devices / machine.name
            wanted = self._device_links(machine) if machine.state == "Running" else {}
            present = (
                {str(link.relative_to(folder)) for link in folder.rglob("*") if link.is_symlink()}
                if folder.is_dir()
                else set()
            )
            for name in present - set(wanted):
                (folder / name).unlink(missing_ok=True)
            for name, target in wanted.items():
                _link(folder / name, target)
            (folder / "by-id").mkdir(parents=True, exist_ok=True)

    def _device_links(self, machine: Machine) -> dict[str, Path]:
        links: dict[str, Path] = {}
        for drive in machine.drives:
            image = self.describe(drive.path)
            kind, number, location = drive.place
            file = self.local(drive.path).resolve()
            links[f"{kind.lower()}-{number}-{location}"] = file
            links[f"by-id/{uuid.UUID(image.identifier).hex}"] = file
        return links

    def copy_in(self, source: Path, path: str, size_bytes: int | None) -> None:
        """Puts an existing raw image into a volume as the payload of a new disk image."""
        file = self.local(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = size_bytes or source.stat().st_size
        if path.lower().endswith(".vhd"):
            write_vhd(file, whole, uuid.uuid4(), source)
        else:
            copy_file(source, file)
            os.truncate(file, whole)


def key(path: str) -> str:
    """What images are remembered by: a Windows path without regard to case or slashes."""
    return path.strip().replace("/", "\\").lower()


def read_footer(file: Path) -> Footer | None:
    """The footer of a fixed VHD, None when the file has none that fits it."""
    footer = parse_footer(_last(file))
    if footer is None or footer.size_bytes != file.stat().st_size - FOOTER:
        return None
    return footer


def write_vhd(
    file: Path, size_bytes: int, identifier: uuid.UUID, source: Path | None = None
) -> None:
    """Makes a sparse file of a fixed VHD, with the bytes of a raw image in it if one is given.

    It gets its name last, so that a half-written one is never taken for a disk.
    """
    temporary = file.with_name(file.name + ".new")
    temporary.unlink(missing_ok=True)
    if source is not None:
        copy_file(source, temporary)
    with temporary.open("ab") as image:
        image.truncate(size_bytes)
        image.seek(size_bytes)
        image.write(pack_footer(size_bytes, identifier))
    temporary.replace(file)


def _last(file: Path) -> bytes:
    with file.open("rb") as image:
        size = image.seek(0, os.SEEK_END)
        image.seek(max(0, size - FOOTER))
        return image.read()


def _child(folder: Path, name: str) -> Path:
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    matches = [entry for entry in folder.iterdir() if entry.name.lower() == name.lower()]
    return matches[0] if matches else exact


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(link.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
