"""Virtual machines: reading, updating and deleting them, and their instance view."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from lab.azure.arm import COMPUTE, COMPUTE_WIDE, Call, ResourceManager
from lab.azure.blobs import timestamp
from lab.azure.config import Config
from lab.azure.errors import ArmError
from lab.azure.guests import Guests
from lab.azure.http import Response, json_response
from lab.azure.library import Library
from lab.azure.operations import RUNNING, Operation, Work
from lab.azure.resources import (
    DISKS,
    INTERFACES,
    MACHINES,
    Resource,
    apply_tags,
    find,
    list_response,
    list_scope,
    require_location,
    same_id,
    within,
)
from lab.azure.store import State, new_resource

POWER_TEXT = {
    "running": "VM running",
    "starting": "VM starting",
    "stopping": "VM stopping",
    "stopped": "VM stopped",
    "deallocating": "VM deallocating",
    "deallocated": "VM deallocated",
}


class Machines:
    """``Microsoft.Compute/virtualMachines`` without the power actions."""

    def __init__(
        self,
        manager: ResourceManager,
        library: Library,
        guests: Guests,
        config: Config,
        arm_url: str,
    ) -> None:
        """Register the routes and the operations."""
        self._store = manager.store
        self._operations = manager.operations
        self._library = library
        self._guests = guests
        self._config = config
        self._arm_url = arm_url
        every = f"{COMPUTE}/virtualMachines"
        one = f"{every}/{{name}}"
        route = manager.route
        route("GET", one, "virtualMachines.get", self.get)
        route("PUT", one, "virtualMachines.createOrUpdate", self.put)
        route("PATCH", one, "virtualMachines.update", self.patch)
        route("DELETE", one, "virtualMachines.delete", self.delete)
        route("GET", f"{one}/instanceView", "virtualMachines.instanceView", self.instance_view)
        route("GET", every, "virtualMachines.list", self.list_page)
        route("GET", f"{COMPUTE_WIDE}/virtualMachines", "virtualMachines.listAll", self.list_page)
        register = self._operations.register
        register("virtualMachines.create", Work(self._finish_create))
        register("virtualMachines.update", Work(self._finish_update))
        register("virtualMachines.delete", Work(self._finish_delete, prepare=self._cut_power))

    def get(self, call: Call) -> Response:
        """One machine; ``$expand=instanceView`` adds how it is doing."""
        expand = call.request.query.get("$expand", "").lower() == "instanceview"
        with self._store.reading() as state:
            machine = find(state, call.resource_id, MACHINES)
            body = render(state, machine)
            if expand:
                body["properties"]["instanceView"] = instance_view(state, machine, self._guests)
            return json_response(200, body)

    def list_page(self, call: Call) -> Response:
        """The machines of a group or subscription."""
        with self._store.reading() as state:
            return list_response(
                call,
                within(state, list_scope(call), MACHINES),
                lambda machine: render(state, machine),
                self._config.list_page_size,
                self._arm_url,
            )

    def instance_view(self, call: Call) -> Response:
        """How a machine is doing: provisioning, power, agent, disks."""
        machine_id = call.request.path.rstrip("/").rsplit("/", 1)[0]
        with self._store.reading() as state:
            machine = find(state, machine_id, MACHINES)
            return json_response(200, instance_view(state, machine, self._guests))

    def put(self, call: Call) -> Response:
        """Create a machine from existing disks, or update one."""
        body = call.json()
        with self._store.changing() as state:
            existing = state["resources"].get(call.resource_id.lower())
            check_match(call, state, existing)
            if existing is not None:
                self._update(state, existing, body)
                headers = self._begin(state, call, "update", existing)
                return json_response(200, render(state, existing), headers)
            machine = self._create(state, call, body)
            headers = self._begin(state, call, "create", machine, self._config.latency.vm)
            return json_response(201, render(state, machine), headers)

    def patch(self, call: Call) -> Response:
        """Change tags, delete options, the list of data disks, the size."""
        body = call.json()
        with self._store.changing() as state:
            machine = find(state, call.resource_id, MACHINES)
            check_match(call, state, machine)
            self._update(state, machine, body)
            headers = self._begin(state, call, "update", machine)
            return json_response(200, render(state, machine), headers)

    def delete(self, call: Call) -> Response:
        """Begin to delete a machine and what its delete options say; 204 if it is not there."""
        with self._store.changing() as state:
            machine = state["resources"].get(call.resource_id.lower())
            if machine is None:
                return Response(204)
            return Response(202, self._begin(state, call, "delete", machine))

    def _begin(
        self, state: State, call: Call, verb: str, machine: Resource, seconds: float | None = None
    ) -> dict[str, str]:
        return self._operations.begin(
            state,
            f"virtualMachines.{verb}",
            machine["id"],
            location=machine["body"]["location"],
            seconds=self._config.latency.vm_update if seconds is None else seconds,
            api_version=call.api_version,
            fail=call.fail,
            # An update waits for nobody and disturbs nobody; a deletion ends whatever still runs.
            preempt=verb == "delete",
        )

    def _create(self, state: State, call: Call, body: dict[str, Any]) -> Resource:
        location = require_location(body)
        properties = dict(body.get("properties") or {})
        machine = new_resource(
            call.resource_id,
            MACHINES,
            {
                "location": location,
                "tags": dict(body.get("tags") or {}),
                "properties": {
                    **properties,
                    "vmId": str(uuid.uuid4()),
                    "provisioningState": "Succeeded",
                    "timeCreated": timestamp(),
                },
            },
            {"power": "starting", "power_since": timestamp()},
        )
        state["resources"][machine["id"].lower()] = machine
        profile = properties.get("storageProfile") or {}
        attached = [profile["osDisk"]] if profile.get("osDisk") else []
        for entry in attached + list(profile.get("dataDisks") or []):
            disk = attach(state, machine, entry)
            generation = disk["body"]["properties"].get("hyperVGeneration")
            machine["lab"].setdefault("generation", generation or "V1")
        return machine

    def _update(self, state: State, machine: Resource, body: dict[str, Any]) -> None:
        apply_tags(machine, body)
        current = machine["body"]["properties"]
        wanted = body.get("properties") or {}
        storage = wanted.get("storageProfile") or {}
        profile = current.get("storageProfile", {})
        if storage.get("osDisk"):
            profile["osDisk"] = {**profile["osDisk"], **storage["osDisk"]}
        if storage.get("dataDisks") is not None:
            self._replace_data_disks(state, machine, list(storage["dataDisks"]))
        for wish in (wanted.get("networkProfile") or {}).get("networkInterfaces") or []:
            for interface in current.get("networkProfile", {}).get("networkInterfaces", []):
                if same_id(interface.get("id"), wish.get("id")):
                    mine = interface.get("properties") or {}
                    interface["properties"] = {**mine, **(wish.get("properties") or {})}
        if wanted.get("hardwareProfile"):
            current["hardwareProfile"] = wanted["hardwareProfile"]

    def _replace_data_disks(
        self, state: State, machine: Resource, wanted: list[dict[str, Any]]
    ) -> None:
        """The list in a request is the whole list: what is not in it is detached."""
        profile = machine["body"]["properties"]["storageProfile"]
        before = {entry["lun"]: entry for entry in profile.get("dataDisks", [])}
        after = []
        for wish in wanted:
            entry = {**before.pop(wish["lun"], {}), **wish}
            attach(state, machine, entry)
            after.append(entry)
        for entry in before.values():
            detach(state, entry)
        profile["dataDisks"] = after

    def _finish_create(self, state: State, operation: Operation) -> None:
        machine = find(state, operation["resource"], MACHINES)
        set_power(machine, "running")
        self._guests.start(state, machine)

    def _finish_update(self, state: State, operation: Operation) -> None:
        find(state, operation["resource"], MACHINES)

    def _cut_power(self, operation: Operation) -> None:
        self._guests.stop(operation["resource"], graceful=False)

    def _finish_delete(self, state: State, operation: Operation) -> None:
        machine = state["resources"].pop(operation["resource"].lower(), None)
        if machine is None:
            return
        properties = machine["body"]["properties"]
        profile = properties.get("storageProfile") or {}
        os_disk = [profile["osDisk"]] if profile.get("osDisk") else []
        for entry in os_disk + list(profile.get("dataDisks") or []):
            disk = detach(state, entry)
            if disk is not None and entry.get("deleteOption") == "Delete":
                del state["resources"][disk["id"].lower()]
        for interface in (properties.get("networkProfile") or {}).get("networkInterfaces") or []:
            if (interface.get("properties") or {}).get("deleteOption") == "Delete":
                state["resources"].pop(str(interface["id"]).lower(), None)
            elif str(interface["id"]).lower() in state["resources"]:
                adapter = find(state, interface["id"], INTERFACES)
                adapter["body"]["properties"].pop("virtualMachine", None)
        self._library.collect(state)


def attach(state: State, machine: Resource, entry: dict[str, Any]) -> Resource:
    """Give a disk to a machine; returns the disk.

    Raises :class:`ArmError` if it is not there or another machine has it.
    """
    disk = find(state, str((entry.get("managedDisk") or {}).get("id", "")), DISKS)
    owner = disk["body"].get("managedBy")
    if owner and not same_id(owner, machine["id"]):
        message = f"Cannot attach disk '{disk['name']}': it is attached to VM '{owner}'."
        raise ArmError(409, "AttachDiskWhileBeingDetached", message)
    disk["body"]["managedBy"] = machine["id"]
    entry.setdefault("name", disk["name"])
    entry.setdefault("deleteOption", "Detach")
    return disk


def detach(state: State, entry: dict[str, Any]) -> Resource | None:
    """Take a disk from its machine; returns it, or ``None`` if it is gone."""
    disk_id = str((entry.get("managedDisk") or {}).get("id", "")).lower()
    disk: Resource | None = state["resources"].get(disk_id)
    if disk is not None:
        disk["body"].pop("managedBy", None)
    return disk


def set_power(machine: Resource, power: str) -> None:
    """Note a machine's power state and since when it holds."""
    machine["lab"].update(power=power, power_since=timestamp())


def etag(machine: Resource) -> str:
    """Changes with everything a client can change of a machine."""
    content = json.dumps(machine["body"], sort_keys=True).encode()
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def check_match(call: Call, state: State, machine: Resource | None) -> None:
    """Honour If-Match and If-None-Match. Raises :class:`ArmError` 412."""
    wanted = call.request.headers.get("if-match")
    unwanted = call.request.headers.get("if-none-match")
    wrong = wanted is not None and (machine is None or wanted not in ("*", etag(machine)))
    if wrong or (unwanted == "*" and machine is not None):
        message = "The condition given in the request header(s) was not met."
        raise ArmError(412, "PreconditionFailed", message)


def render(state: State, machine: Resource) -> dict[str, Any]:
    """A machine as it goes over the wire."""
    properties = {
        **machine["body"]["properties"],
        "provisioningState": _provisioning(state, machine),
    }
    return {**machine["body"], "etag": etag(machine), "properties": properties}


def _provisioning(state: State, machine: Resource) -> str:
    busy = {
        "virtualMachines.create": "Creating",
        "virtualMachines.delete": "Deleting",
    }
    for operation in state["operations"].values():
        if operation["status"] == RUNNING and same_id(operation["resource"], machine["id"]):
            return busy.get(operation["kind"], "Updating")
    return str(machine["lab"].get("provisioning", "Succeeded"))


def instance_view(state: State, machine: Resource, guests: Guests) -> dict[str, Any]:
    """The machine's instance view, as the platform sees it at this moment."""
    properties = machine["body"]["properties"]
    profile = properties.get("storageProfile") or {}
    power = machine["lab"]["power"]
    provisioning = _provisioning(state, machine)
    since = machine["lab"]["power_since"]
    settled = "Provisioning succeeded" if provisioning == "Succeeded" else provisioning
    view: dict[str, Any] = {
        "hyperVGeneration": machine["lab"].get("generation", "V1"),
        "disks": [
            {"name": entry["name"], "statuses": [_status("ProvisioningState/succeeded", since)]}
            for entry in [profile.get("osDisk"), *(profile.get("dataDisks") or [])]
            if entry
        ],
        "statuses": [
            {
                **_status(f"ProvisioningState/{provisioning.lower()}", since),
                "displayStatus": settled,
            },
            {
                "code": f"PowerState/{power}",
                "level": "Info",
                "displayStatus": POWER_TEXT[power],
            },
        ],
    }
    if power == "running":
        view["computerName"] = machine["name"]
        ready = guests.booted(machine["id"])
        view["vmAgent"] = {
            "vmAgentVersion": "2.9.1.1" if ready else "Unknown",
            "statuses": [
                {
                    "code": "ProvisioningState/succeeded"
                    if ready
                    else "ProvisioningState/Unavailable",
                    "level": "Info" if ready else "Warning",
                    "displayStatus": "Ready" if ready else "Not Ready",
                    "message": "Guest Agent is running"
                    if ready
                    else "VM status blob is found but not yet populated.",
                    "time": timestamp(),
                }
            ],
        }
    return view


def _status(code: str, time_text: str) -> dict[str, Any]:
    return {
        "code": code,
        "level": "Info",
        "displayStatus": "Provisioning succeeded",
        "time": time_text,
    }
