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
        return self.machines([machine_id], call)[0]

    def machines(self, machine_ids: Sequence[str], call: Call | None = None) -> list[Machine]:
        """Machines in full, in this order.

        Raises:
            MachineNotFound: One of them is not there.
        """
        if not machine_ids:
            return []
        what = ", ".join(machine_ids)
        answer = listed(self.ask(f"read machine {what}", scripts.machines(machine_ids), call))
        if len(answer) != len(machine_ids):
            raise MachineNotFound(f"Not all of these machines are on {self.name}: {what}.")
        return [Machine.parse(value) for value in answer]

    def names(self, call: Call | None = None) -> list[Machine]:
        """All machines, with nothing but id and name."""
        answer = self.ask("list its machines", scripts.machine_names(), call)
        return [Machine.parse(value) for value in listed(answer)]

    def ids_of(self, name: str, call: Call | None = None) -> list[str]:
        """Ids of all machines of this name."""
        return ids_named(self.names(call), name)

    def find(self, name: str, call: Call | None = None) -> Machine | None:
        """The machine of this name in full, `None` if there is none.

        Raises:
            MachineState: Several machines bear the name.
        """
        found = self.ids_of(name, call)
        if len(found) > 1:
            raise self._several(name, found)
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

    def mover_id(self, mover: str, call: Call | None = None) -> str:
        """The id of the virtual machine that a mover runs in.

        Raises:
            MachineNotFound: It is not on this host.
            MachineState: Several machines bear its name.
        """
        name = self.settings.mover_vm(mover)
        found = self.ids_of(name, call)
        if not found:
            raise MachineNotFound(
                f"Mover {mover!r} should run in machine {name!r}, which is not on {self.name}.",
                hint="Name its machine under the host's `movers` in the worker's configuration, "
                "or use a mover on this host.",
            )
        if len(found) > 1:
            raise self._several(name, found)
        return found[0]

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

    def _several(self, name: str, found: list[str]) -> MachineState:
        return MachineState(
            f"{len(found)} machines on {self.name} are named {name!r}.",
            hint="Rename all but the one that is meant.",
        )

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


def ids_named(machines: Iterable[Machine], name: str) -> list[str]:
    """Ids of the machines of this name; Hyper-V allows several."""
    return [machine.id for machine in machines if same_name(machine.name, name)]
