"""Starting, turning off and looking at a machine."""

from __future__ import annotations

from models.machine import MachineHealth, OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.host import Host

# Hyper-V reports `Starting` until the worker process stands, seconds on a healthy host.
_STATE_SECONDS = 120.0


def start(host: Host, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
    """Start the machine and see that it runs; fine if it runs."""
    found = host.resolve(spec, machine, call)
    state = found.state
    if not found.is_running:
        state = host.ask(f"start {found.name!r}", scripts.start_machine(found.id), call)
    if state != "Running":
        _wait_for(host, found.id, found.name, "Running", call)


def turn_off(host: Host, spec: FailbackSpec, machine: OnPremisesMachine, call: Call) -> None:
    """Turn the machine off at once and see that it is; fine if it is off."""
    found = host.resolve(spec, machine, call)
    state = found.state
    if not found.is_off:
        state = host.ask(f"turn off {found.name!r}", scripts.turn_off_machine(found.id), call)
    if state != "Off":
        _wait_for(host, found.id, found.name, "Off", call)


def health(host: Host, spec: FailbackSpec, machine: OnPremisesMachine) -> MachineHealth:
    """State, heartbeat and addresses, as the host sees them."""
    found = host.resolve(spec, machine)
    return MachineHealth(
        state=found.state.lower(),
        # `OkApplicationsHealthy`, `OkApplicationsUnknown`; anything else is silence or trouble.
        heartbeat=found.heartbeat.startswith("Ok"),
        addresses=[address for adapter in found.adapters for address in adapter.addresses],
        detail=f"heartbeat {found.heartbeat or 'unknown'}",
    )


def _wait_for(host: Host, machine_id: str, name: str, state: str, call: Call) -> None:
    host.wait(
        f"machine {name!r} to be {state.lower()}",
        lambda: host.machine(machine_id, call).state == state,
        call,
        seconds=_STATE_SECONDS,
    )
