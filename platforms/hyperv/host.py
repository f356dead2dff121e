"""One Hyper-V host as the operations of this package see it: typed questions, machines by name or
id, and the lock that keeps this process's own threads apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from models.errors import HypervisorFailed, MachineNotFound, MachineState, Stopped
from models.machine import OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.connection import ConnectionPool
from platforms.hyperv.facts import Machine, Overview, VirtualDisk, listed, same_name
from platforms.hyperv.settings import HyperVHost

_POLL_SECONDS = 0.5


class Host:
    """Questions and commands to one host.

    Attributes:
        name: The host's name in the worker's configuration.
        settings: How it is reached.
        mover_lock: Held while a free slot on a mover is looked for and taken.
    """

    def __init__(self, name: str, settings: HyperVHost) -> None:
        self.name = name
        self.settings = settings
        self.mover_lock = threading.Lock()
        self._pool = ConnectionPool(name, settings)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def ask(
        self, action: str, body: str, call: Call | None = None, *, seconds: float | None = None
    ) -> Any:
        """Run one script; see `ConnectionPool.ask`."""
        stop = call.stop if call is not None else None
        return self._pool.ask(action, body, stop=stop, timeout_seconds=seconds)

    # --- questions ----------------------------------------------------------------------------

    def overview(self, call: Call | None = None) -> Overview:
        """Every machine with drives and checkpoints, and every switch."""
        answer = self.ask("list its machines", scripts.overview(), call)
        return Overview.parse(answer or {})

    def machine(self, machine_id: str, call: Call | None = None) -> Machine:
        """One machine in full.

        Raises:
            MachineNotFound: There is none with this id.
        """
        answer = self.ask(f"read machine {machine_id}", scripts.machine(machine_id), call)
        return Machine.parse(answer or {})

    def ids_of(self, name: str, call: Call | None = None) -> list[str]:
        """Ids of all machines of this name."""
        answer = self.ask("list its machines", scripts.machine_names(), call)
        machines = [Machine.parse(value) for value in listed(answer)]
        return [machine.id for machine in machines if same_name(machine.name, name)]

    def find(self, name: str, call: Call | None = None) -> Machine | None:
        """The machine of this name in full, `None` if there is none.

        Raises:
            MachineState: Several machines bear the name.
        """
        found = self.ids_of(name, call)
        if len(found) > 1:
            raise MachineState(
                f"{len(found)} machines on {self.name} are named {name!r}.",
                hint="Rename all but the one that comes home.",
            )
        return self.machine(found[0], call) if found else None

    def resolve(
        self, spec: FailbackSpec, machine: OnPremisesMachine, call: Call | None = None
    ) -> Machine:
        """The machine itself: by its id where preflight or creation learned it, else by name.

        Raises:
            MachineNotFound: It does not exist.
        """
        if machine.machine_id:
            return self.machine(machine.machine_id, call)
        found = self.find(spec.on_premises_name, call)
        if found is None:
            raise MachineNotFound(
                f"Machine {spec.on_premises_name!r} does not exist on {self.name}."
            )
        return found

    def mover(self, mover: str, call: Call | None = None) -> Machine:
        """The virtual machine that a mover runs in.

        Raises:
            MachineNotFound: It is not on this host.
        """
        name = self.settings.mover_vm(mover)
        found = self.find(name, call)
        if found is None:
            raise MachineNotFound(
                f"Mover {mover!r} should run in machine {name!r}, which is not on {self.name}.",
                hint="Name its machine in the host's mover_vms, or use a mover on this host.",
            )
        return found

    def virtual_disks(self, paths: Iterable[str], call: Call | None = None) -> list[VirtualDisk]:
        """What the host says of these files; one that cannot be read has `error`."""
        wanted = list(paths)
        if not wanted:
            return []
        answer = self.ask("read its virtual disks", scripts.virtual_disks(wanted), call)
        return [VirtualDisk.parse(value) for value in listed(answer)]

    def existing(self, paths: Sequence[str], call: Call | None = None) -> set[str]:
        """Those of these paths that exist."""
        if not paths:
            return set()
        answer = self.ask("look for files", scripts.existing(paths), call)
        return {str(value["path"]) for value in listed(answer) if value.get("exists")}

    # --- waiting ------------------------------------------------------------------------------

    def wait(
        self, what: str, done: Callable[[], bool], call: Call | None, *, seconds: float
    ) -> None:
        """Poll until it is done.

        Raises:
            Stopped: The caller was told to stop.
            HypervisorFailed: It was not done in time.
        """
        stop = call.stop if call is not None else threading.Event()
        for _ in range(max(1, round(seconds / _POLL_SECONDS))):
            if done():
                return
            if stop.wait(_POLL_SECONDS):
                raise Stopped(f"Waiting for {what} on {self.name} was told to stop.")
        raise HypervisorFailed(f"{self.name}: {what} took longer than {seconds:.0f} s.")
