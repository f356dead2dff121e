"""An emulated Hyper-V host in a process of its own, and the platform pointed at it.

Machines are put into its memory before it starts, in states that no script of ours could make.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from lab import chaos
from lab.hyperv.model import Drive, HostState, Image, Machine, Store
from lab.hyperv.seed import READY_FILE, create_host
from lab.hyperv.storage import key, write_vhd
from models.machine import CloudAdapter, CloudDisk, CloudMachine
from models.spec import FailbackSpec
from platforms.hyperv import HyperVHost, HyperVPlatform, Secret
from tests.waiting import wait_until

MIB = 2**20
GIB = 2**30
MOVER = "mover1"
RUN = "0190a1b2-run"


class Hypervisor:
    """One emulator process with its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings: dict[str, Any] = create_host(
            directory,
            "HV1",
            volumes={"C": 100 * GIB, "D": 50 * GIB},
            switches=("LAN", "Isolated"),
        )
        self.state = self.now()
        self._process: subprocess.Popen[bytes] | None = None
        self.machine(MOVER, generation=1, mover=True, state="Running")

    # --- before the start ---------------------------------------------------------------------

    def machine(self, name: str, disks: dict[str, str] | None = None, **fields: Any) -> Machine:
        """A machine; `disks` are paths by place (`SCSI 0:0`)."""
        made = Machine(name=name, path=f"D:\\VMs\\{name}", **{"generation": 2, **fields})
        for place, path in (disks or {}).items():
            kind, _, rest = place.partition(" ")
            number, _, location = rest.partition(":")
            made.drives.append(
                Drive(
                    controller_type=kind,
                    controller_number=int(number),
                    controller_location=int(location),
                    path=path,
                )
            )
        self.state.machines.append(made)
        return made

    def disk(self, path: str, size_bytes: int = 16 * MIB, **fields: Any) -> None:
        """A disk file of zeros."""
        file = self.local(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.lower().endswith(".vhd"):
            write_vhd(file, size_bytes, uuid.uuid4())
            return
        with file.open("wb") as created:
            created.truncate(size_bytes)
        self.state.images[key(path)] = Image(
            path=path,
            size_bytes=size_bytes,
            identifier=str(uuid.uuid4()),
            **{"kind": "Dynamic", **fields},
        )

    def simple(self, name: str, *sizes: int, **fields: Any) -> Machine:
        """A machine of generation 2 with disks of these sizes at SCSI 0:0, 0:1, …"""
        disks = {}
        for number, size in enumerate(sizes or (16 * MIB,)):
            path = f"D:\\VMs\\{name}\\disk{number}.vhdx"
            self.disk(path, size)
            disks[f"SCSI 0:{number}"] = path
        return self.machine(name, disks, **fields)

    def local(self, path: str) -> Path:
        """The file behind a Windows path."""
        drive, _, rest = path.partition(":\\")
        return self.directory / "hyperv" / "volumes" / drive / rest.replace("\\", "/")

    # --- the process --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the emulator; the first time with what was put into it."""
        if self._process is None:
            Store.create(self.directory, self.state)
        log = (self.directory / "hyperv.log").open("ab")
        command = [sys.executable, "-m", "lab.hyperv", "--dir", str(self.directory)]
        self._process = subprocess.Popen(command, stderr=log)
        wait_until(lambda: (self.directory / READY_FILE).exists(), 30)

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def misbehave(self, operation: str, action: str, **rule: Any) -> str:
        """Let the host do wrong from now on; returns the rule's id."""
        return chaos.add(self.directory, {"operation": operation, "action": action, **rule})

    def now(self) -> HostState:
        """What it remembers at this moment."""
        return HostState.model_validate_json(
            (self.directory / "hyperv-state.json").read_text(encoding="utf-8")
        )

    def seen(self, name: str) -> Machine | None:
        """One machine as it is now."""
        return next((m for m in self.now().machines if m.name == name), None)

    def host(self, **changes: Any) -> HyperVHost:
        """The settings a worker would have."""
        fields: dict[str, Any] = {
            "endpoint": self.settings["endpoint"],
            "username": self.settings["user"],
            "password": Secret(self.settings["password"]),
            "ca_file": self.settings["ca_file"],
        }
        return HyperVHost(**{**fields, **changes})

    def platform(self, **changes: Any) -> HyperVPlatform:
        """The platform with this host as `hv1`."""
        return HyperVPlatform({"hv1": self.host(**changes)})


def spec(name: str, **target: Any) -> FailbackSpec:
    """A spec that brings this machine home to `hv1`; the machine's own name is plain letters."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name).strip("-")
    return FailbackSpec.model_validate(
        {
            "machine": plain,
            "azure": {"subscription_id": "s", "resource_group": "g", "vm": name},
            "on_premises": {"host": "hv1", "vm": name, **target},
            "mover": MOVER,
        }
    )


def alternate(name: str, **target: Any) -> FailbackSpec:
    """A spec that creates this machine on `hv1`."""
    return spec(name, **{"location": "alternate", "storage_path": "D:\\New", **target})


def cloud(*sizes: int, generation: int = 2, **fields: Any) -> CloudMachine:
    """A machine in Azure with an OS disk and data disks of these sizes."""
    return CloudMachine(
        **{
            "name": "web01",
            "resource_id": "/vm",
            "location": "westeurope",
            "vm_id": "id",
            "generation": generation,
            "os_type": "Linux",
            "processors": 2,
            "memory_bytes": GIB,
            "power_state": "running",
            "disks": [
                CloudDisk(
                    disk_id="os" if number == 0 else f"lun{number - 1}",
                    name=f"disk{number}",
                    resource_id=f"/disk{number}",
                    unique_id=str(number),
                    size_bytes=size,
                )
                for number, size in enumerate(sizes or (16 * MIB,))
            ],
            "adapters": [CloudAdapter(resource_id="/nic", subnet="LAN")],
            **fields,
        }
    )
