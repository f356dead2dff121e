"""Puts the emulator together: state, bytes, services, ports."""

from __future__ import annotations

import fcntl
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from lab import tls
from lab.azure.admin import Admin
from lab.azure.arm import ResourceManager
from lab.azure.config import Config
from lab.azure.export import ExportHost
from lab.azure.guests import Guests
from lab.azure.http import Server
from lab.azure.identity import PATH as IDENTITY_PATH
from lab.azure.identity import Identity
from lab.azure.library import Library
from lab.azure.machines import Machines
from lab.azure.managed_disks import ManagedDisks
from lab.azure.operations import Operations
from lab.azure.power import Power
from lab.azure.seed import DISKS_DIRECTORY, LOCK_FILE, STATE_FILE
from lab.azure.snapshots import Snapshots
from lab.azure.store import Store
from lab.azure.surroundings import Surroundings
from lab.chaos import Chaos

READY_FILE = "azure.ready"


class AlreadyRunningError(RuntimeError):
    """Another emulator works on the same directory."""


class Emulator:
    """One emulated subscription on three loopback ports."""

    def __init__(self, directory: Path) -> None:
        """Open the state in ``directory``, or begin a new one, and bind the ports.

        Raises :class:`AlreadyRunningError` if another process has the directory.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = (directory / LOCK_FILE).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(f"an emulator runs on {directory} already") from error
        # Left over from a kill; whoever waits for it must wait for us.
        (directory / READY_FILE).unlink(missing_ok=True)
        self.config = Config.load(directory)
        context = tls.server_context(directory)
        self.store = Store(directory / STATE_FILE)
        self.library = Library(directory / DISKS_DIRECTORY)
        self.guests = Guests(directory / "guest", self.library, self.config)
        identity = Identity(self.config)

        # The services need to know their own addresses, so the ports come first.
        self._arm = Server(self.config.arm_port, lambda request: manager.handle(request), context)
        self._data = Server(self.config.data_port, lambda request: export.handle(request), context)
        self._local = Server(self.config.local_port, lambda request: admin.handle(request))
        self.config.arm_port = self._arm.port
        self.config.data_port = self._data.port
        self.config.local_port = self._local.port
        self.config.save(directory)

        arm_url = f"https://127.0.0.1:{self._arm.port}"
        data_url = f"https://127.0.0.1:{self._data.port}"
        self.operations = Operations(self.store, arm_url)
        chaos = Chaos(directory, "azure-arm")
        manager = ResourceManager(self.store, self.operations, identity, chaos)
        ManagedDisks(manager, self.library, self.config, arm_url, data_url)
        Snapshots(manager, self.library, self.config, arm_url, data_url)
        Machines(manager, self.library, self.guests, self.config, arm_url)
        Power(manager, self.guests, self.config)
        Surroundings(manager, self.config, arm_url)
        data_chaos = Chaos(directory, "azure-data")
        export = ExportHost(self.store, self.library, data_chaos, self.config)
        change = partial(self.config.change, directory)
        admin = Admin(self.store, self.library, self.guests, identity, change, chaos)

    def start(self) -> None:
        """Clean up after a kill, boot the guests, serve, and write the ready file."""
        with self.store.changing() as state:
            self.library.collect(state)
            self.guests.start_all(state)
        self.operations.start()
        for server in (self._arm, self._data, self._local):
            server.start()
        ready = self._directory / READY_FILE
        temporary = ready.with_name(READY_FILE + ".new")
        temporary.write_text(json.dumps(describe(self._directory), indent=1))
        temporary.replace(ready)

    def stop(self) -> None:
        """Stop serving and cut the guests' power. Machines stay "running" for the next start."""
        (self._directory / READY_FILE).unlink(missing_ok=True)
        for server in (self._arm, self._data, self._local):
            server.close()
        self.guests.stop_all()
        self._lock.close()


def describe(directory: Path) -> dict[str, Any]:
    """What a client needs to know of the emulator of ``directory``."""
    config = Config.load(directory)
    return {
        "pid": os.getpid(),
        "arm_url": f"https://127.0.0.1:{config.arm_port}",
        "data_url": f"https://127.0.0.1:{config.data_port}",
        "lab_url": f"http://127.0.0.1:{config.local_port}/lab",
        "ca_file": str(directory / tls.CA_FILE),
        "credential_scope": "https://management.azure.com/.default",
        "environment": {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{config.local_port}{IDENTITY_PATH}",
            "IDENTITY_HEADER": config.identity_header,
        },
    }
