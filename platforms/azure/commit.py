"""Deleting the Azure machine at commit: the machine, if nobody has started it again, and exactly
the disks the run knew, whatever the machine's own settings say about what goes with it."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from azure.mgmt.compute import models as azure_models

from models.errors import AzureConflict, AzureNotFound
from models.machine import CloudDisk, CloudMachine
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.errors import guarded
from platforms.azure.names import parse_resource_id, same_resource
from platforms.azure.operations import run_operation
from platforms.azure.power import DEALLOCATED, STOPPED, power_of
from platforms.azure.waiting import wait_for
from platforms.base import Call

_log = logging.getLogger(__name__)
_DETACH = "detach"


class Commit:
    """Deletes a machine. Safe to call again at any point of its own work."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._settings = clients.settings

    def delete_machine(
        self, source: AzureMachineRef, machine: CloudMachine, call: Call
    ) -> list[str]:
        """Delete the machine, then its disks of `machine` that are still the same and unattached.

        A machine that was made anew under the name is somebody else's: the one of the run is gone.

        Returns the names of what is gone, by this call or by an earlier one that was cut off.

        Raises:
            AzureConflict: It runs again, cannot be told from another, or will not let go of its
                disks.
        """
        found = self._own_machine(source, machine)
        if found is not None:
            _refuse_running(found)
            self._keep_everything(source, machine, found, call)
            self._delete(source, machine, call)
        gone = [machine.name]
        for disk in machine.disks:
            if self._delete_disk(disk, source, machine, call):
                gone.append(disk.name)
        return gone

    def _own_machine(
        self, source: AzureMachineRef, machine: CloudMachine
    ) -> azure_models.VirtualMachine | None:
        """The machine that the run brought home, if it still exists."""
        found = self._machine(source)
        if found is None or _is_same(found, machine):
            return found
        _log.warning("virtual machine %s was made anew by somebody; it is kept", machine.name)
        return None

    def _machine(self, source: AzureMachineRef) -> azure_models.VirtualMachine | None:
        virtual_machines = self._clients.compute(source.subscription_id).virtual_machines
        try:
            return guarded(
                f"Reading virtual machine {source.vm!r}",
                lambda: virtual_machines.get(
                    source.resource_group, source.vm, expand="instanceView"
                ),
            )
        except AzureNotFound:
            return None

    def _keep_everything(
        self,
        source: AzureMachineRef,
        machine: CloudMachine,
        found: azure_models.VirtualMachine,
        call: Call,
    ) -> None:
        """See to it that deleting the machine deletes nothing else."""
        if not _goes_along(found):
            return
        patch = _detaching(found)
        compute = self._clients.compute(source.subscription_id)
        run_operation(
            "keep-disks-and-interfaces",
            f"Setting what virtual machine {source.vm!r} leaves behind when it is deleted",
            partial(compute.virtual_machines.begin_update, source.resource_group, source.vm, patch),
            call,
            self._settings,
        )
        after = self._own_machine(source, machine)
        if after is None:
            return
        _refuse_running(after)
        if left := _goes_along(after):
            raise AzureConflict(
                f"Deleting virtual machine {source.vm!r} would still delete {', '.join(left)}; "
                "nothing was deleted.",
                hint="Set their delete option to Detach, then retry.",
            )

    def _delete(self, source: AzureMachineRef, machine: CloudMachine, call: Call) -> None:
        compute = self._clients.compute(source.subscription_id)
        run_operation(
            "delete-machine",
            f"Deleting virtual machine {source.vm!r}",
            partial(compute.virtual_machines.begin_delete, source.resource_group, source.vm),
            call,
            self._settings,
        )
        if not wait_for(
            lambda: self._own_machine(source, machine) is None,
            call,
            seconds=self._settings.confirm_seconds,
            interval_seconds=self._settings.polling_interval_seconds,
            waiting_for=f"virtual machine {source.vm!r} to be gone",
        ):
            raise AzureConflict(f"Virtual machine {source.vm!r} still exists after its deletion.")

    def _delete_disk(
        self, disk: CloudDisk, source: AzureMachineRef, machine: CloudMachine, call: Call
    ) -> bool:
        """Whether the disk is gone now."""
        found = self._disk(disk)
        if found is None:
            return True
        if not disk.unique_id or found.unique_id != disk.unique_id:
            _log.warning("disk %s is another one by now; it is kept", disk.name)
            return False
        if not self._is_free(disk, source, machine, call):
            _log.warning("disk %s is attached to another machine; it is kept", disk.name)
            return False
        where = parse_resource_id(disk.resource_id)
        compute = self._clients.compute(where.subscription_id)
        try:
            run_operation(
                f"delete-disk/{disk.disk_id}",
                f"Deleting disk {disk.name!r}",
                partial(compute.disks.begin_delete, where.resource_group, where.name),
                call,
                self._settings,
            )
        except AzureNotFound:
            pass
        return True

    def _is_free(
        self, disk: CloudDisk, source: AzureMachineRef, machine: CloudMachine, call: Call
    ) -> bool:
        """Whether nothing holds the disk; waits while that is the deleted machine itself, and not
        one that was made anew under its name."""
        holder: list[str] = []

        def settled() -> bool:
            found = self._disk(disk)
            holder[:] = [found.managed_by] if found is not None and found.managed_by else []
            if not holder or not same_resource(holder[0], machine.resource_id):
                return True
            return self._machine(source) is not None

        if not wait_for(
            settled,
            call,
            seconds=self._settings.confirm_seconds,
            interval_seconds=self._settings.polling_interval_seconds,
            waiting_for=f"disk {disk.name!r} to be detached",
        ):
            raise AzureConflict(
                f"Disk {disk.name!r} is still attached to {machine.name!r}, which is deleted.",
                hint="Azure may need a while; retry.",
            )
        return not holder

    def _disk(self, disk: CloudDisk) -> azure_models.Disk | None:
        where = parse_resource_id(disk.resource_id)
        disks = self._clients.compute(where.subscription_id).disks
        try:
            return guarded(
                f"Reading disk {disk.name!r}",
                lambda: disks.get(where.resource_group, where.name),
            )
        except AzureNotFound:
            return None


def _is_same(found: azure_models.VirtualMachine, machine: CloudMachine) -> bool:
    """Whether it is the machine that the run brought home, and not another of its name."""
    if not machine.vm_id or not found.vm_id:
        raise AzureConflict(
            f"Virtual machine {machine.name!r} has no id to know it by; nothing was deleted.",
            hint="Delete by hand what you are sure of, then retry or abort.",
        )
    return str(found.vm_id).lower() == machine.vm_id.lower()


def _refuse_running(found: azure_models.VirtualMachine) -> None:
    """What the machine wrote since the cut-over is nowhere else. Only a machine that is known to be
    at rest is deleted; one whose deletion has begun is past saving."""
    if str(found.provisioning_state or "").lower() == "deleting":
        return
    view = found.instance_view
    state = power_of(view.statuses if view is not None else [])
    if state not in (STOPPED, DEALLOCATED):
        raise AzureConflict(
            f"Virtual machine {found.name!r} is {state}: it runs again since the cut-over; nothing "
            "was deleted.",
            hint="What it wrote since would be lost. Save that and stop it, then retry.",
        )


def _goes_along(found: azure_models.VirtualMachine) -> list[str]:
    """Names of what would be deleted with the machine."""
    names = [str(disk.name) for disk in _disks(found) if _option(disk.delete_option) != _DETACH]
    for interface in _interfaces(found):
        if _option(interface.delete_option) != _DETACH:
            names.append(str(interface.id).rsplit("/", 1)[-1])
    return names


def _detaching(found: azure_models.VirtualMachine) -> azure_models.VirtualMachineUpdate:
    """The change that makes everything stay. Azure replaces these lists whole, so they are sent as
    they were read, with nothing but the option changed."""
    for disk in _disks(found):
        disk.delete_option = azure_models.DiskDeleteOptionTypes.DETACH
    for interface in _interfaces(found):
        interface.delete_option = azure_models.DeleteOptions.DETACH
    return azure_models.VirtualMachineUpdate(
        properties=azure_models.VirtualMachineProperties(
            storage_profile=found.storage_profile, network_profile=found.network_profile
        )
    )


def _disks(found: azure_models.VirtualMachine) -> list[Any]:
    profile = found.storage_profile
    if profile is None:
        return []
    return ([profile.os_disk] if profile.os_disk else []) + list(profile.data_disks or [])


def _interfaces(found: azure_models.VirtualMachine) -> list[Any]:
    profile = found.network_profile
    return list(profile.network_interfaces or []) if profile else []


def _option(value: object) -> str:
    # What names no option is kept by Azure.
    return str(getattr(value, "value", value) or _DETACH).lower()
