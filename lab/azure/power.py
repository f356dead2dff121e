"""Power actions of virtual machines: start, restart, power off, deallocate.

A graceful power-off asks the guest and waits; a guest that does not follow loses its power when the
wait ends, as in Azure (five minutes there, ``guest_shutdown_timeout`` here). A ``refuse_shutdown``
rule makes the operation fail instead, with ``VMGuestShutdownTimedOut`` unless the rule names
another code, and the machine runs on. A newer action on the same machine preempts an older one.
"""

from __future__ import annotations

import time

from lab.azure import access
from lab.azure.arm import COMPUTE, Call, ResourceManager
from lab.azure.config import Config
from lab.azure.errors import ArmError
from lab.azure.guests import Guests
from lab.azure.http import Response
from lab.azure.machines import set_power
from lab.azure.operations import Operation, Work
from lab.azure.resources import MACHINES, Resource, find
from lab.azure.store import State

ASK_SECONDS = 0.25  # how long one attempt to stop the guest lasts before we look around

ACTIONS = {"start": "starting", "restart": "running", "powerOff": "stopping"}
TRANSITIONS = {**ACTIONS, "deallocate": "deallocating"}


class Power:
    """The ``POST`` actions on virtual machines that change whether they run."""

    def __init__(self, manager: ResourceManager, guests: Guests, config: Config) -> None:
        """Register the routes and the operations."""
        self._store = manager.store
        self._operations = manager.operations
        self._guests = guests
        self._config = config
        for verb in TRANSITIONS:
            template = f"{COMPUTE}/virtualMachines/{{name}}/{{verb:{verb}}}"
            manager.route("POST", template, f"virtualMachines.{verb}", self.begin)
        register = self._operations.register
        register("virtualMachines.start", Work(self._started, undo=self._back))
        register(
            "virtualMachines.restart", Work(self._started, prepare=self._stop, undo=self._back)
        )
        register(
            "virtualMachines.powerOff", Work(self._stopped, prepare=self._stop, undo=self._back)
        )
        register(
            "virtualMachines.deallocate",
            Work(self._deallocated, prepare=self._stop, undo=self._back),
        )

    def begin(self, call: Call) -> Response:
        """Begin the action that the path names."""
        verb = next(v for v in TRANSITIONS if v.lower() == call.params["verb"].lower())
        skip = call.request.query.get("skipshutdown", "").lower() == "true"
        refusal = call.action if call.action and call.action.kind == "refuse_shutdown" else None
        latency = self._config.latency.vm
        with self._store.changing() as state:
            machine = find(state, call.resource_id, MACHINES)
            before = machine["lab"]["power"]
            if verb in ("start", "restart"):
                self._check_disks(state, machine)
            headers = self._operations.begin(
                state,
                f"virtualMachines.{verb}",
                machine["id"],
                location=machine["body"]["location"],
                # The guest is asked at once; the service's own time passes meanwhile.
                seconds=latency if verb == "start" else 0,
                api_version=call.api_version,
                fail=call.fail,
                preempt=True,
                until=time.time() + latency,
                give_up=time.time() + self._config.guest_shutdown_timeout,
                graceful=verb in ("powerOff", "restart") and not skip,
                before=_settled(before),
                refusal={
                    "code": refusal.code or "VMGuestShutdownTimedOut",
                    "message": refusal.message or "The guest operating system did not shut down.",
                }
                if refusal and not skip
                else None,
            )
            if not (verb == "powerOff" and before == "deallocated"):
                set_power(machine, TRANSITIONS[verb])
        return Response(202, headers)

    def _check_disks(self, state: State, machine: Resource) -> None:
        profile = machine["body"]["properties"].get("storageProfile") or {}
        os_disk = [profile["osDisk"]] if profile.get("osDisk") else []
        for entry in os_disk + list(profile.get("dataDisks") or []):
            if access.active_grant(state, entry["managedDisk"]["id"]):
                message = (
                    f"Cannot start VM '{machine['name']}': disk '{entry['name']}' has an active "
                    "shared access signature."
                )
                raise ArmError(409, "OperationNotAllowed", message)

    def _stop(self, operation: Operation) -> None:
        """Bring the guest down, one way or the other, and let the service's own time pass."""
        params, machine = operation["params"], operation["resource"]
        stopped = not params["graceful"] and self._guests.stop(machine, graceful=False)
        while not stopped and self._operations.still_running(operation["id"]):
            if params["refusal"] is None and params["graceful"]:
                stopped = self._guests.stop(machine, graceful=True, seconds=ASK_SECONDS)
            if not stopped and time.time() >= params["give_up"]:
                if params["refusal"]:
                    refusal = params["refusal"]
                    raise ArmError(409, refusal["code"], refusal["message"])
                stopped = self._guests.stop(machine, graceful=False)
            if not stopped:
                time.sleep(ASK_SECONDS)
        time.sleep(max(0.0, params["until"] - time.time()))

    def _started(self, state: State, operation: Operation) -> None:
        machine = find(state, operation["resource"], MACHINES)
        set_power(machine, "running")
        self._guests.start(state, machine)

    def _stopped(self, state: State, operation: Operation) -> None:
        machine = find(state, operation["resource"], MACHINES)
        if machine["lab"]["power"] != "deallocated":
            set_power(machine, "stopped")

    def _deallocated(self, state: State, operation: Operation) -> None:
        set_power(find(state, operation["resource"], MACHINES), "deallocated")

    def _back(self, state: State, operation: Operation) -> None:
        machine = find(state, operation["resource"], MACHINES)
        set_power(machine, operation["params"]["before"])
        if operation["params"]["before"] == "running":
            self._guests.start(state, machine)


def _settled(power: str) -> str:
    """The state that a failed action goes back to, when another one was interrupted by it."""
    return {"starting": "running", "stopping": "running", "deallocating": "running"}.get(
        power, power
    )
