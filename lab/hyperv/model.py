"""What the lab's Hyper-V host remembers, and how it is kept through a kill at any instant.

The whole state is one small JSON file that is replaced in one step. Every operation changes the
state first and the files and links after it, in an order that `lab.hyperv.host` can finish on the
next start.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

STATE_FILE = "hyperv-state.json"


def new_id() -> str:
    return str(uuid.uuid4())


class Volume(BaseModel):
    """A lettered volume. `size_bytes` is its capacity; what is used is counted from its files."""

    size_bytes: int


class Switch(BaseModel):
    name: str
    id: str = Field(default_factory=new_id)
    kind: Literal["External", "Internal", "Private"] = "External"


class Drive(BaseModel):
    """A hard disk drive of a machine: a place on a controller and the image in it, or a physical
    disk of the host with its number (the lab shows those, and does nothing with them)."""

    controller_type: Literal["IDE", "SCSI"]
    controller_number: int
    controller_location: int
    path: str
    disk_number: int | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.controller_type, self.controller_number, self.controller_location


class StaticAddress(BaseModel):
    """What SetGuestNetworkAdapterConfiguration put into the guest."""

    dhcp: bool = True
    addresses: list[str] = []
    subnets: list[str] = []
    gateways: list[str] = []
    dns_servers: list[str] = []


class Adapter(BaseModel):
    """A network adapter. `leased` are the addresses the guest gets where none are set."""

    name: str = "Network Adapter"
    id: str = Field(default_factory=new_id)
    switch: str | None = None
    mac: str = "000000000000"
    dynamic_mac: bool = True
    vlan_mode: Literal["Untagged", "Access", "Trunk"] = "Untagged"
    vlan_id: int = 0
    leased: list[str] = []
    guest: StaticAddress = Field(default_factory=StaticAddress)


class Checkpoint(BaseModel):
    """A checkpoint; `drives` name the images that it froze."""

    name: str
    id: str = Field(default_factory=new_id)
    parent: str | None = None
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    kind: str = "Standard"
    drives: list[Drive] = []


class Machine(BaseModel):
    """A virtual machine. `mover` marks the one whose disks appear as devices of the lab's mover."""

    name: str
    id: str = Field(default_factory=new_id)
    generation: int = 1
    version: str = "10.0"
    path: str = ""
    notes: str = ""
    state: Literal["Off", "Running"] = "Off"
    started: datetime | None = None
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    mover: bool = False
    processors: int = 1
    memory_bytes: int = 512 << 20
    dynamic_memory: bool = False
    checkpoint_type: str = "Production"
    automatic_checkpoints: bool = False
    checkpoint_location: str = ""
    start_action: str = "StartIfRunning"
    stop_action: str = "Save"
    replication_state: str = "Disabled"
    replication_mode: str = "None"
    secure_boot: bool = True
    secure_boot_template: str = "MicrosoftWindows"
    first_boot: str = ""
    shutdown_service: bool = True
    disabled_services: list[str] = []
    drives: list[Drive] = []
    adapters: list[Adapter] = []
    checkpoints: list[Checkpoint] = []
    current_checkpoint: str | None = None


class Image(BaseModel):
    """What is known of a disk image beside its bytes, by lower-case path.

    A fixed ``.vhd`` describes itself by its footer and has an entry only while the footer is cut
    off (`footer` holds it, in hex). A ``.vhdx`` is kept as raw payload, so that everything else
    about it is here. An ``.avhdx`` lies over its `parent`.
    """

    path: str
    size_bytes: int
    identifier: str
    kind: Literal["Fixed", "Dynamic", "Differencing"] = "Fixed"
    logical_sector: int = 512
    physical_sector: int = 4096
    parent: str | None = None
    footer: str | None = None


class Merge(BaseModel):
    """A differencing image that is to be merged into its parent, in the background."""

    child: str
    parent: str


class HostState(BaseModel):
    """Everything the host remembers.

    `shells_per_user` is WinRM's quota (30 on a real host), None for no limit. Shells of clients
    that died count until they have been idle for two hours, as on a real host.
    """

    name: str
    user: str = "LAB\\failback"
    password: str = "lab-Passw0rd"
    https_port: int = 0
    http_port: int = 0
    admin_port: int = 0
    shells_per_user: int | None = None
    volumes: dict[str, Volume] = {}
    switches: list[Switch] = []
    machines: list[Machine] = []
    images: dict[str, Image] = {}
    merges: list[Merge] = []


class Store:
    """The state in memory and on disk; change it only inside `change`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / STATE_FILE
        self.lock = threading.RLock()
        self.state = HostState.model_validate_json(self._file.read_text(encoding="utf-8"))

    @staticmethod
    def create(directory: Path, state: HostState) -> None:
        """Writes a first state."""
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / STATE_FILE, state.model_dump_json(indent=1))

    @contextmanager
    def change(self) -> Iterator[HostState]:
        """Changes the state; it is on disk when the block ends. Nothing is kept if it raises."""
        with self.lock:
            before = self.state.model_copy(deep=True)
            try:
                yield self.state
            except BaseException:
                self.state = before
                raise
            _replace(self._file, self.state.model_dump_json(indent=1))


def _replace(file: Path, content: str) -> None:
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(file)
