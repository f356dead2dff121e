"""Preflight on a Hyper-V host: read-only, every check that can be made is made, whatever the others
say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from models.errors import (
    FailbackError,
    HypervisorDenied,
    InvalidConfiguration,
    MachineState,
    Stopped,
)
from models.machine import CloudMachine, OnPremisesMachine, OnPremisesReport
from models.spec import FailbackSpec, Location
from models.units import human_size
from platforms.base import Call
from platforms.hyperv import scripts
from platforms.hyperv.checks import Checks
from platforms.hyperv.existing import check_existing
from platforms.hyperv.facts import Overview, same_name
from platforms.hyperv.host import Host
from platforms.hyperv.planning import check_planned

_T = TypeVar("_T")


def inspect(
    host: Host, spec: FailbackSpec, cloud: CloudMachine | None, mover: str, call: Call
) -> OnPremisesReport:
    """All checks, and the machine as it is or as it would be created."""
    checks = Checks()
    machine: OnPremisesMachine | None = None
    overview = _reach(host, checks, call)
    if overview is not None:
        reached = overview

        def look() -> OnPremisesMachine | None:
            return _check_machine(host, spec, cloud, reached, checks, call)

        machine = _guarded(checks, "machine", look)
        disks = [disk.path for disk in machine.disks] if machine else []
        _guarded(
            checks, "mover", lambda: _check_mover(host, spec, cloud, reached, mover, disks, checks)
        )
    return OnPremisesReport(checks=checks.results, machine=machine)


def _reach(host: Host, checks: Checks, call: Call) -> Overview | None:
    """Host, account and module, as far as they go."""
    try:
        facts = host.ask("answer", scripts.host_facts(), call)
    except Stopped:
        raise
    except FailbackError as error:
        name, code = _reach_code(error)
        checks.failed(name, code, error.message, error.hint)
        return None
    checks.passed("host reachable", host.settings.endpoint)
    checks.passed("account", f"signed in as {host.settings.username}")
    checks.passed(
        "Hyper-V module",
        f"{facts.get('name')}: {facts.get('processors')} processors, "
        f"{human_size(int(facts.get('memory') or 0))}",
    )
    return _guarded(checks, "machines of the host", lambda: host.overview(call))


def _reach_code(error: FailbackError) -> tuple[str, str]:
    if isinstance(error, HypervisorDenied):
        return "account", "ACCOUNT"
    if isinstance(error, InvalidConfiguration):
        if "Hyper-V module" in error.hint:
            return "Hyper-V module", "MODULE"
        if "certificate" in error.message:
            return "host's certificate", "CERTIFICATE"
        return "configuration", "CONFIGURATION"
    return "host reachable", "HOST"


def _guarded(checks: Checks, what: str, look: Callable[[], _T]) -> _T | None:
    """Let one part's error be one failed check, and the others go on."""
    try:
        return look()
    except Stopped:
        raise
    except FailbackError as error:
        checks.failed(what, "READ", error.message, error.hint)
        return None


def _check_machine(
    host: Host,
    spec: FailbackSpec,
    cloud: CloudMachine | None,
    overview: Overview,
    checks: Checks,
    call: Call,
) -> OnPremisesMachine | None:
    name = spec.on_premises_name
    found = overview.named(name)
    if len(found) > 1:
        raise MachineState(
            f"{len(found)} machines on the host are named {name!r}.",
            hint="Rename all but the one that comes home.",
        )
    if spec.on_premises.location is Location.ALTERNATE and found:
        checks.failed(
            "name is free",
            "NAME",
            f"a machine {name!r} exists, and location is alternate",
            "Give the new one another name (on_premises.vm), or come home to the existing one "
            "(location: original). If a run left it behind, `failback doctor` removes it.",
        )
        check_planned(host, spec, cloud, overview, checks, call)
        return None
    if found:
        checks.passed("machine exists", f"{name} ({found[0].id})")
        return check_existing(host, spec, cloud, overview, found[0].id, checks, call)
    if spec.on_premises.creates:
        checks.passed("name is free", f"{name} will be created")
        return check_planned(host, spec, cloud, overview, checks, call)
    near = [other.name for other in overview.machines if name.casefold() in other.name.casefold()]
    checks.failed(
        "machine exists",
        "MACHINE",
        f"no machine named {name!r} on {host.name}"
        + (f"; similar: {', '.join(near)}" if near else ""),
        "Name it in on_premises.vm, choose its host, or let it be created "
        "(on_premises.create_if_missing).",
    )
    return None


def _check_mover(
    host: Host,
    spec: FailbackSpec,
    cloud: CloudMachine | None,
    overview: Overview,
    mover: str,
    disks: list[str],
    checks: Checks,
) -> None:
    name = host.settings.mover_vm(mover)
    found = overview.named(name)
    if len(found) != 1:
        checks.failed(
            "mover",
            "MOVER",
            f"{len(found) or 'no'} machines named {name!r} on {host.name} for mover {mover!r}",
            "Use a mover on this host, or name its machine under the host's `movers` in the "
            "worker's configuration.",
        )
        return
    machine = found[0]
    checks.decide(
        "mover runs",
        "MOVER-OFF",
        [] if machine.is_running else [f"{name} is {machine.state.lower()}"],
        f"{name} runs",
        "Start it, and its failback worker.",
    )
    checks.decide(
        "mover is another machine",
        "MOVER-SELF",
        [f"{name} is the machine that comes home"]
        if same_name(name, spec.on_premises_name)
        else [],
        name,
        "Use a mover that runs in a machine of its own.",
    )
    old = [path for path in disks if path.casefold().endswith(".vhd")]
    checks.decide(
        "mover takes the disks' format",
        "MOVER-GENERATION",
        [f"{name} is of generation 2, which takes no VHD: {', '.join(old)}"]
        if machine.generation == 2 and old
        else [],
        f"generation {machine.generation}",
        "Use a mover of generation 1, or convert the disks to VHDX (Convert-VHD).",
    )
    settings = host.settings
    taken = {
        drive.location
        for drive in machine.drives
        if drive.controller_type.upper() == "SCSI"
        and drive.controller_number == settings.mover_controller
    }
    places = range(settings.first_location, settings.first_location + settings.slots)
    free = len([location for location in places if location not in taken])
    needed = len(cloud.disks) if cloud is not None else 1
    checks.decide(
        "mover has free places",
        "MOVER-SLOTS",
        [f"{free} free of {settings.slots}, {needed} needed"] if free < needed else [],
        f"{free} free, {needed} needed",
        "Use another mover, or wait until a run has ended.",
    )
