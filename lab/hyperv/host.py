"""The Hyper-V host itself: machines, their drives, checkpoints and guests.

Cmdlets (`lab.hyperv.cmdlets`) call it; it knows nothing of PowerShell or the wire. All changes
happen under one lock, state before files, and `recover` finishes what a kill has left half done.
"""

import contextlib
import logging
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lab.chaos import Action
from lab.guest import GuestRunner
from lab.hyperv.disks import LayerDisk, SwitchableDisk, close
from lab.hyperv.model import Adapter, Checkpoint, Drive, HostState, Machine, Merge, Store
from lab.hyperv.storage import Storage, StorageError, key

_log = logging.getLogger(__name__)

MERGE_DELAY_SECONDS = 0.2
"""A merge begins a moment after its checkpoint is gone, so that callers have to wait as in life."""
GRACEFUL_SECONDS = 10.0
"""How long a guest may take to shut down before the host calls it unresponsive."""


class HostError(Exception):
    """The host refuses. `kind` is one of Hyper-V's own: "InvalidParameter", "InvalidState",
    "OperationFailed", "ObjectNotFound"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Host:
    """One Hyper-V host whose files are in a lab directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(directory)
        self.storage = Storage(directory, self.store)
        self._guests: dict[str, GuestRunner] = {}
        self._disks: dict[str, dict[int, SwitchableDisk]] = {}
        self._merging = threading.Lock()

    @property
    def lock(self) -> threading.RLock:
        return self.store.lock

    @property
    def state(self) -> HostState:
        return self.store.state

    @contextlib.contextmanager
    def changing(self, machine_id: str) -> Iterator[Machine]:
        """A machine to change; the change is kept when the block ends."""
        with self.store.change() as state:
            yield _machine(state, machine_id)

    def recover(self) -> None:
        """Brings files, links, merges and guests to what the state says; call once at start."""
        with self.lock:
            self._drop_unreferenced()
            exposed = {
                key(drive.path)
                for machine in self.state.machines
                if machine.mover and machine.state == "Running"
                for drive in machine.drives
            }
            for name, image in list(self.state.images.items()):
                if image.footer is None:
                    continue
                if name in exposed:
                    self.storage.expose(image.path)
                else:
                    self.storage.conceal(image.path)
            for path in exposed:
                self.storage.expose(path)
            self.link_devices()
            for machine in self.state.machines:
                if machine.state == "Running":
                    self._boot(machine, None)
        for merge in list(self.state.merges):
            self._merge_soon(merge.child)

    def _drop_unreferenced(self) -> None:
        """Deletes layers that a killed checkpoint, restore or merge has left behind."""
        wanted: set[str] = set()
        for machine in self.state.machines:
            frozen = [drive for taken in machine.checkpoints for drive in taken.drives]
            for drive in (*machine.drives, *frozen):
                wanted |= self._chain(drive.path)
        for merge in self.state.merges:
            wanted |= self._chain(merge.child)
        for name, image in list(self.state.images.items()):
            if image.kind == "Differencing" and name not in wanted:
                self._drop_layer(image.path)
        self.storage.delete_unknown_layers()

    def link_devices(self) -> None:
        self.storage.link_devices([machine for machine in self.state.machines if machine.mover])

    def guest(self, machine: Machine) -> GuestRunner | None:
        """The workload that runs in a machine, None where it is off or the mover."""
        return self._guests.get(machine.id)

    def booted(self, machine: Machine) -> bool:
        """Whether integration services answer."""
        guest = self._guests.get(machine.id)
        if machine.mover:
            return machine.state == "Running"
        return guest is not None and guest.booted and not guest.mute

    def addresses(self, machine: Machine, adapter: Adapter) -> list[str]:
        """The IP addresses that an adapter's guest reports now."""
        if not self.booted(machine) or adapter.switch is None:
            return []
        if not adapter.guest.dhcp:
            return adapter.guest.addresses
        return adapter.leased or [_leased(machine, adapter)]

    def users_of(self, path: str) -> list[Machine]:
        """The running machines that hold an image open, in a drive or below one."""
        return [
            machine
            for machine in self.state.machines
            if machine.state == "Running"
            and any(key(path) in self._chain(drive.path) for drive in machine.drives)
        ]

    def _chain(self, path: str) -> set[str]:
        chain = {key(path)}
        image = self.state.images.get(key(path))
        while image is not None and image.parent is not None:
            chain.add(key(image.parent))
            image = self.state.images.get(key(image.parent))
        return chain

    def start(self, machine: Machine, misbehaviour: Action | None = None) -> None:
        """Turns a machine on; its guest boots in the background.

        Raises:
            HostError: it runs already, or one of its disks is missing or in use.
        """
        with self.lock:
            if machine.state == "Running":
                raise HostError(
                    "InvalidState", "The operation cannot be performed while the object is in use."
                )
            for drive in machine.drives:
                self._check_startable(machine, drive)
            with self.changing(machine.id) as changed:
                changed.state = "Running"
                changed.started = datetime.now(UTC)
            if machine.mover:
                for drive in machine.drives:
                    self.storage.expose(drive.path)
                self.link_devices()
            self._boot(machine, misbehaviour)

    def _check_startable(self, machine: Machine, drive: Drive) -> None:
        where = f"'{machine.name}' failed to start. Synthetic SCSI Controller: Failed to power on"
        try:
            self.storage.describe(drive.path)
        except StorageError as error:
            message = f"{where}. Attachment '{drive.path}': {error}"
            raise HostError("OperationFailed", message) from None
        if self.users_of(drive.path):
            raise HostError(
                "OperationFailed",
                f"{where} with Error 'The process cannot access the file because it is being used "
                f"by another process.' (0x80070020). Attachment '{drive.path}'",
            )

    def _boot(self, machine: Machine, misbehaviour: Action | None) -> None:
        machine = self.machine(machine.id)
        if machine.mover or machine.id in self._guests:
            return
        disks = {
            number: SwitchableDisk(self.storage.open(drive.path))
            for number, drive in enumerate(machine.drives)
        }
        guest = GuestRunner(
            site="onprem",
            vm=machine.name,
            disks=disks,
            state_dir=self.directory / "guest" / machine.name,
        )
        if misbehaviour is not None:
            guest.mute = misbehaviour.kind == "no_heartbeat"
            if misbehaviour.kind == "boot_failure":
                guest.boot_failure = misbehaviour.message or "the boot loader failed"
        self._guests[machine.id], self._disks[machine.id] = guest, disks
        guest.start()

    def stop(self, machine: Machine, *, graceful: bool, refused: bool = False) -> None:
        """Shuts a machine's guest down, or cuts its power; nothing happens to one that is off.

        Raises:
            HostError: the guest did not shut down.
        """
        with self.lock:
            machine = self.machine(machine.id)
            if machine.state == "Off":
                return
            guest = self._guests.get(machine.id)
            if guest is not None:
                possible = machine.shutdown_service and not guest.mute and not refused
                if graceful and not (possible and guest.stop(True, GRACEFUL_SECONDS)):
                    raise HostError(
                        "OperationFailed",
                        f"'{machine.name}' failed to shut down. The device is not ready for use. "
                        "(0x800710DF).",
                    )
                guest.stop(False, GRACEFUL_SECONDS)
            self._guests.pop(machine.id, None)
            for disk in self._disks.pop(machine.id, {}).values():
                close(disk)
            with self.changing(machine.id) as changed:
                changed.state = "Off"
                changed.started = None
            if machine.mover:
                self.link_devices()
                for drive in machine.drives:
                    self.storage.conceal(drive.path)

    def machine(self, machine_id: str) -> Machine:
        """The machine as it is now.

        Raises:
            HostError: it is gone.
        """
        found = [machine for machine in self.state.machines if machine.id == machine_id]
        if not found:
            raise HostError("ObjectNotFound", f"There is no machine with the id '{machine_id}'.")
        return found[0]

    def attach(self, machine: Machine, drive: Drive) -> None:
        """Puts an image into a machine's controller.

        Raises:
            HostError: the place is taken, the image is missing, in use or of the wrong format.
        """
        with self.lock:
            if any(other.place == drive.place for other in machine.drives):
                raise HostError(
                    "OperationFailed",
                    "Failed to add device 'Virtual Hard Disk'. The specified location "
                    f"{drive.controller_number},{drive.controller_location} is already in use.",
                )
            self._check_drive(machine, drive)
            with self.changing(machine.id) as changed:
                changed.drives.append(drive)
            if machine.mover and machine.state == "Running":
                self.storage.expose(drive.path)
                self.link_devices()

    def _check_drive(self, machine: Machine, drive: Drive) -> None:
        kind, number, location = drive.place
        limits = (2, 2) if kind == "IDE" else (4, 64)
        if number not in range(limits[0]) or location not in range(limits[1]):
            raise HostError("InvalidParameter", "The controller location is out of range.")
        if kind == "IDE" and machine.generation == 2:
            raise HostError("InvalidParameter", "A generation 2 machine has no IDE controller.")
        if kind == "IDE" and machine.state == "Running":
            raise HostError(
                "InvalidState", "A disk cannot be added to an IDE controller of a running machine."
            )
        if machine.generation == 2 and drive.path.lower().endswith(".vhd"):
            raise HostError(
                "OperationFailed",
                f"'{machine.name}' could not add '{drive.path}': a generation 2 machine needs the "
                "VHDX format. The version does not support this version of the file format. "
                "(0xC03A0005).",
            )
        if machine.state == "Running" and not machine.mover:
            raise HostError("InvalidState", "The lab hot-adds disks to the mover only.")
        users = self.users_of(drive.path)
        if machine.state == "Running" and users:
            raise HostError(
                "OperationFailed",
                f"Failed to add device 'Virtual Hard Disk'. '{machine.name}' cannot use "
                f"'{drive.path}': the process cannot access the file because it is being used by "
                "another process. (0x80070020).",
            )

    def detach(self, machine: Machine, drive: Drive) -> None:
        """Takes an image out of a machine; its file stays."""
        with self.lock:
            if machine.state == "Running" and not machine.mover:
                raise HostError("InvalidState", "The lab hot-removes disks from the mover only.")
            with self.changing(machine.id) as changed:
                changed.drives = [one for one in changed.drives if one.place != drive.place]
            if machine.mover:
                self.link_devices()
                self.storage.conceal(drive.path)

    def checkpoint(self, machine: Machine, name: str) -> Checkpoint:
        """Freezes a machine's images and lets it go on in layers over them."""
        with self.lock:
            if machine.state == "Running":
                raise HostError("InvalidState", "The lab checkpoints machines that are off.")
            with self.store.change() as state:
                changed = _machine(state, machine.id)
                frozen = [drive.model_copy() for drive in changed.drives]
                taken = Checkpoint(
                    name=name,
                    parent=changed.current_checkpoint,
                    kind=changed.checkpoint_type,
                    drives=frozen,
                )
                changed.checkpoints.append(taken)
                changed.current_checkpoint = taken.id
                for drive in changed.drives:
                    drive.path = self.storage.add_layer(drive.path, state)
            return taken

    def restore(self, machine: Machine, wanted: Checkpoint) -> None:
        """Throws away what a machine wrote since a checkpoint; a running one is turned off."""
        with self.lock:
            self.stop(machine, graceful=False)
            dropped = [drive.path for drive in self.machine(machine.id).drives]
            with self.store.change() as state:
                changed = _machine(state, machine.id)
                changed.current_checkpoint = wanted.id
                changed.drives = [
                    drive.model_copy(update={"path": self.storage.add_layer(drive.path, state)})
                    for drive in wanted.drives
                ]
            for path in dropped:
                self._drop_layer(path)

    def _drop_layer(self, path: str) -> None:
        image = self.state.images.get(key(path))
        if image is not None and image.parent is not None:
            self.storage.delete_layer(path)
            self.storage.forget(path)

    def remove_checkpoint(self, machine: Machine, removed: Checkpoint) -> None:
        """Forgets a checkpoint; the layers over its images are merged in the background."""
        with self.lock:
            merges = []
            for frozen in removed.drives:
                children = [
                    image for image in self.state.images.values() if image.parent == frozen.path
                ]
                if len(children) == 1:
                    merges.append(Merge(child=children[0].path, parent=frozen.path))
            with self.store.change() as state:
                changed = _machine(state, machine.id)
                changed.checkpoints = [one for one in changed.checkpoints if one.id != removed.id]
                for other in changed.checkpoints:
                    if other.parent == removed.id:
                        other.parent = removed.parent
                if changed.current_checkpoint == removed.id:
                    changed.current_checkpoint = removed.parent
                state.merges += merges
        for merge in merges:
            self._merge_soon(merge.child)

    def _merge_soon(self, child: str) -> None:
        timer = threading.Timer(MERGE_DELAY_SECONDS, self._merge, (child,))
        timer.daemon = True
        timer.start()

    def _merge(self, path: str) -> None:
        with self._merging, self.lock:
            # Looked up only now: an earlier merge may have given the layer another parent.
            merge = next((one for one in self.state.merges if one.child == path), None)
            if merge is None:
                return
            with contextlib.ExitStack() as stack:
                # A running guest waits for its disk meanwhile: nothing may change under the copy,
                # not even between the reading of the layer's map and the copy.
                held = self._open_disks(merge.child)
                for disk in held:
                    stack.enter_context(disk.lock)
                layer = self.storage.open(merge.child)
                assert isinstance(layer, LayerDisk)
                layer.merge()
                close(layer)
                with self.store.change() as state:
                    state.merges = [one for one in state.merges if one.child != merge.child]
                    _replace_path(state, merge.child, merge.parent)
                    child = state.images[key(merge.child)]
                for disk in held:
                    close(disk.inner)
                    disk.inner = self.storage.open(merge.parent)
            self.storage.delete_layer(child.path)
            self.storage.forget(child.path)
            _log.info("merged %s into %s", merge.child, merge.parent)

    def _open_disks(self, path: str) -> list[SwitchableDisk]:
        return [
            self._disks[machine.id][number]
            for machine in self.state.machines
            if machine.id in self._disks
            for number, drive in enumerate(machine.drives)
            if key(drive.path) == key(path)
        ]


def _machine(state: HostState, machine_id: str) -> Machine:
    return next(machine for machine in state.machines if machine.id == machine_id)


def _replace_path(state: HostState, old: str, new: str) -> None:
    """Every drive and layer that named one image names the other one instead."""
    for machine in state.machines:
        frozen = [drive for checkpoint in machine.checkpoints for drive in checkpoint.drives]
        for drive in (*machine.drives, *frozen):
            if key(drive.path) == key(old):
                drive.path = new
    for image in state.images.values():
        if image.parent is not None and key(image.parent) == key(old):
            image.parent = new
    for merge in state.merges:
        if key(merge.parent) == key(old):
            merge.parent = new


def _leased(machine: Machine, adapter: Adapter) -> str:
    """What the network's DHCP server gives a machine that nobody seeded an address for."""
    number = zlib.crc32(f"{machine.id}/{adapter.id}".encode())
    return f"10.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number % 253 + 1}"
