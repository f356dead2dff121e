"""The guests inside the emulated machines: one workload per machine that runs.

A machine whose state says that it runs has a guest, also after the emulator was killed and started
again. What the guest does with its disks is ``lab.guest``'s business.
"""

from __future__ import annotations

import importlib
import logging
import threading
from pathlib import Path
from typing import Any

from lab.azure.config import Config
from lab.azure.library import Library
from lab.azure.resources import MACHINES, Resource, find
from lab.azure.store import State

_log = logging.getLogger(__name__)

OS_DISK = -1  # the OS disk has no LUN; data disks count from 0
POWERED = ("running", "stopping")  # states in which a guest is alive
SETTINGS = frozenset({"refuse_shutdown", "boot_failure", "mute"})
STOP_SECONDS = 5.0  # how long a cut power may take: a guest's thread ends within a write


class Guests:
    """Starts, stops and asks the guests of one emulated subscription."""

    def __init__(self, directory: Path, library: Library, config: Config) -> None:
        """Guests keep what they acknowledged in ``directory``/NAME-OF-MACHINE."""
        self._directory = directory
        self._library = library
        self._config = config
        self._lock = threading.Lock()
        self._runners: dict[str, Any] = {}
        try:
            self._module: Any = importlib.import_module("lab.guest")
        except ModuleNotFoundError:
            self._module = None

    def start_all(self, state: State) -> None:
        """Start the guests of all machines that run."""
        for resource in state["resources"].values():
            if resource["type"] == MACHINES and resource["lab"]["power"] in POWERED:
                self.start(state, resource)

    def start(self, state: State, machine: Resource) -> None:
        """Boot a machine's guest; nothing happens if it runs already."""
        if self._module is None or machine["lab"].get("guest") is False:
            return
        with self._lock:
            key = machine["id"].lower()
            runner = self._runners.get(key)
            if runner is not None and runner.running:
                return
            state_dir = self._directory / machine["name"]
            state_dir.mkdir(parents=True, exist_ok=True)
            runner = self._module.GuestRunner(
                site="azure",
                vm=machine["name"],
                disks=self._disks(state, machine),
                state_dir=state_dir,
                records_per_second=self._config.guest_records_per_second,
                addresses=addresses(state, machine),
            )
            for name, value in (machine["lab"].get("guest_settings") or {}).items():
                setattr(runner, name, value)
            self._runners[key] = runner
            runner.start()

    def stop(self, machine_id: str, *, graceful: bool, seconds: float = STOP_SECONDS) -> bool:
        """Ask a guest to shut down, or cut its power; whether it is off now."""
        runner = self._runners.get(machine_id.lower())
        return runner is None or bool(runner.stop(graceful, seconds))

    def stop_all(self) -> None:
        """Cut every guest's power, as the end of the emulator does."""
        for runner in list(self._runners.values()):
            runner.stop(False, STOP_SECONDS)

    def booted(self, machine_id: str) -> bool:
        """Whether the guest's agent would answer."""
        if self._module is None:
            return True
        runner = self._runners.get(machine_id.lower())
        return runner is not None and bool(runner.booted)

    def status(self, machine_id: str) -> dict[str, Any]:
        """What the guest says of itself; an empty object if it never ran."""
        runner = self._runners.get(machine_id.lower())
        return dict(runner.status()) if runner is not None else {}

    def set(self, machine: Resource, settings: dict[str, Any]) -> None:
        """Change a guest's behaviour (:data:`SETTINGS`); it lasts over restarts.

        Raises ``ValueError`` for a behaviour that guests do not have.
        """
        if unknown := settings.keys() - SETTINGS:
            raise ValueError(f"guests have {sorted(SETTINGS)}, not {sorted(unknown)}")
        machine["lab"].setdefault("guest_settings", {}).update(settings)
        runner = self._runners.get(machine["id"].lower())
        if runner is not None:
            for name, value in settings.items():
                setattr(runner, name, value)

    def _disks(self, state: State, machine: Resource) -> dict[int, Any]:
        profile = machine["body"]["properties"].get("storageProfile") or {}
        entries = [(OS_DISK, profile["osDisk"])] if profile.get("osDisk") else []
        entries += [(int(entry["lun"]), entry) for entry in profile.get("dataDisks") or []]
        return {
            lun: self._library.disk(find(state, entry["managedDisk"]["id"])["lab"]["disk"])
            for lun, entry in entries
        }


def addresses(state: State, machine: Resource) -> list[str]:
    """The private addresses of a machine's network interfaces."""
    found = []
    network = machine["body"]["properties"].get("networkProfile") or {}
    for entry in network.get("networkInterfaces") or []:
        interface = state["resources"].get(str(entry["id"]).lower())
        configurations = interface["body"]["properties"]["ipConfigurations"] if interface else []
        found += [c["properties"]["privateIPAddress"] for c in configurations]
    return found
