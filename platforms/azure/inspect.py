"""Azure's side of preflight: every read-only check at once, and the machine as it is.

Nothing here changes anything. A check that cannot be made is a failed check; only where Azure does
not answer at all are the others left out, because each would say the same.
"""

from __future__ import annotations

from azure.mgmt.compute import models as azure_models

from models.errors import AzureDenied, AzureNotFound, AzureThrottled, AzureUnavailable
from models.machine import CloudMachine, CloudReport
from models.spec import AzureMachineRef
from platforms.azure.access_checks import AccessChecks
from platforms.azure.checklist import Checklist, Finding
from platforms.azure.clients import Clients
from platforms.azure.disk_checks import check_disks
from platforms.azure.machine import FoundMachine, MachineReader, plain, read_machine
from platforms.azure.power import DEALLOCATED, RUNNING, STOPPED
from platforms.base import Call


class Inspection:
    """One inspection of one machine."""

    def __init__(self, clients: Clients, source: AzureMachineRef, call: Call) -> None:
        self._clients = clients
        self._source = source
        self._reader = MachineReader(clients, source, call)
        self._checklist = Checklist()
        self._virtual_machine: azure_models.VirtualMachine | None = None
        self._reading_error: AzureNotFound | AzureDenied | None = None

    def report(self) -> CloudReport:
        """Make every check."""
        reached = self._checklist.run(
            "azure-reach",
            "FB-CHK-AZURE-REACH",
            "Check the network, the proxy, the CA file and the identity's sign-in.",
            self._reach,
        )
        if not reached:
            return CloudReport(checks=self._checklist.results)
        self._checklist.run(
            "azure-vm",
            "FB-CHK-AZURE-VM",
            "Check azure.subscription_id, azure.resource_group and azure.vm in the spec.",
            self._exists,
        )
        machine: CloudMachine | None = None
        if self._virtual_machine is not None:
            found = read_machine(self._reader, self._virtual_machine)
            machine = found.described(self._source)
            self._check_machine(found, machine)
            check_disks(self._checklist, found.disks)
        AccessChecks(self._clients, self._reader, self._source, machine).add_to(self._checklist)
        return CloudReport(checks=self._checklist.results, machine=machine)

    def _reach(self) -> Finding:
        """Whether Azure answers and knows us; an answer that the machine is not there, or not for
        us, is an answer."""
        url = self._clients.settings.base_url
        try:
            self._virtual_machine = self._reader.virtual_machine()
        except AzureNotFound as error:
            self._reading_error = error
        except AzureDenied as error:
            if "AuthorizationFailed" not in error.message:
                raise
            self._reading_error = error
        except (AzureUnavailable, AzureThrottled) as error:
            return Finding(problems=[error.message])
        return Finding(seen=[f"{url} answers and accepts the identity"])

    def _exists(self) -> Finding:
        machine = self._virtual_machine
        if self._reading_error is not None or machine is None:
            error = self._reading_error
            return Finding(problems=[error.message if error else "it could not be read"])
        return Finding(seen=[f"{machine.id} (id {machine.vm_id})"])

    def _check_machine(self, found: FoundMachine, machine: CloudMachine) -> None:
        run = self._checklist.run
        run(
            "azure-provisioning",
            "FB-CHK-AZURE-PROVISIONING",
            "Wait until Azure is done with the virtual machine, or repair it (az vm reapply).",
            lambda: _provisioning(found),
        )
        run(
            "azure-power",
            "FB-CHK-AZURE-POWER",
            "Wait until the virtual machine runs or is stopped.",
            lambda: _power(found),
        )
        run(
            "azure-region",
            "FB-CHK-AZURE-REGION",
            "Snapshots are made in the disk's region; move the disk.",
            lambda: _region(found),
        )
        run(
            "azure-size",
            "FB-CHK-AZURE-SIZE",
            "Say on_premises.processors and on_premises.memory in the spec where a machine is "
            "created.",
            lambda: _size(found, machine),
        )
        run(
            "azure-network-interfaces",
            "FB-CHK-AZURE-NETWORK-INTERFACES",
            "Give the identity read access to the interfaces; they are only shown.",
            lambda: _interfaces(found),
        )
        run(
            "azure-delete-options",
            "FB-CHK-AZURE-DELETE-OPTIONS",
            "",
            lambda: _delete_options(machine),
        )
        run(
            "azure-capacity",
            "FB-CHK-AZURE-CAPACITY",
            "Once deallocated, an evictable machine may not start again if the run is undone; make "
            "it a regular one first.",
            lambda: _capacity(found),
        )


def _provisioning(found: FoundMachine) -> Finding:
    state = plain(found.virtual_machine.provisioning_state)
    finding = Finding(seen=[state or "not said"])
    if state.lower() != "succeeded":
        finding.problems.append(f"provisioning state is {state or 'not said'}")
    return finding


def _power(found: FoundMachine) -> Finding:
    state = found.power_state
    finding = Finding(seen=[state])
    if state in (STOPPED, DEALLOCATED):
        finding.advice = "It is stopped already; undoing the run will start it."
    elif state != RUNNING:
        finding.problems.append(f"the virtual machine is {state}")
    return finding


def _region(found: FoundMachine) -> Finding:
    region = _region_name(found.virtual_machine.location)
    finding = Finding(seen=[region])
    for disk in found.disks:
        if disk.disk is not None and _region_name(disk.disk.location) != region:
            finding.problems.append(f"disk {disk.name!r} is in {disk.disk.location}, not {region}")
    return finding


def _region_name(location: str | None) -> str:
    return (location or "").replace(" ", "").lower()


def _size(found: FoundMachine, machine: CloudMachine) -> Finding:
    finding = Finding(seen=[machine.size])
    if found.size is None:
        finding.doubts.append(f"processors and memory of {machine.size!r}: {found.size_error}")
    else:
        processors, memory = found.size
        finding.seen = [f"{machine.size}: {processors} processors, {memory / 2**30:.1f} GiB"]
    return finding


def _interfaces(found: FoundMachine) -> Finding:
    seen = [
        f"{adapter.resource_id.rsplit('/', 1)[-1]} in {adapter.subnet or 'no subnet'}: "
        f"{', '.join(adapter.addresses) or 'no address'}"
        for adapter in found.adapters
    ]
    return Finding(seen=seen or ["none"], doubts=found.adapter_errors)


def _delete_options(machine: CloudMachine) -> Finding:
    seen = [f"{disk.disk_id} {disk.delete_option}" for disk in machine.disks]
    seen += [
        f"{adapter.resource_id.rsplit('/', 1)[-1]} {adapter.delete_option}"
        for adapter in machine.adapters
    ]
    goes = any(item.endswith(" Delete") for item in seen)
    advice = (
        "Commit sets all of them to Detach first, then deletes the machine and the disks the run "
        "brought home; interfaces stay."
    )
    return Finding(seen=seen, advice=advice if goes else "")


def _capacity(found: FoundMachine) -> Finding:
    machine = found.virtual_machine
    reservation = machine.capacity_reservation
    group = reservation.capacity_reservation_group if reservation is not None else None
    if group is not None and group.id:
        return Finding(seen=[f"reserved in {group.id.rsplit('/', 1)[-1]}"])
    if plain(machine.priority).lower() in ("spot", "low"):
        return Finding(doubts=[f"the virtual machine has priority {plain(machine.priority)}"])
    return Finding(
        seen=["not reserved"],
        advice="If the run is undone after the machine was deallocated, Azure may have no room to "
        "start it at once; a capacity reservation excludes that.",
    )
