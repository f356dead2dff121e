"""Managed disks: empty ones and copies, growing, and what being attached forbids."""

from __future__ import annotations

from typing import Any

from lab.azure.arm import Call
from lab.azure.blobs import (
    GIBIBYTE,
    BlobProvider,
    common_properties,
    disk_state,
    new_unique_id,
    size_properties,
)
from lab.azure.errors import ArmError
from lab.azure.http import Response, json_response
from lab.azure.operations import Operation, Work
from lab.azure.resources import DISKS, Resource, apply_tags, find, require_location
from lab.azure.store import State, new_resource


class ManagedDisks(BlobProvider):
    """``Microsoft.Compute/disks``."""

    kind = "disks"
    resource_type = DISKS

    def __init__(self, *args: Any) -> None:
        """Register what all exports have, and what creating a disk takes; copying may be long."""
        super().__init__(*args)
        work = Work(self._finish_create, prepare=self._copy, undo=self._undo_create)
        self.operations.register("disks.create", work)

    def put(self, call: Call) -> Response:
        """Create an empty disk or a copy of a snapshot or disk; an existing one is updated."""
        body = call.json()
        with self.store.changing() as state:
            resource = state["resources"].get(call.resource_id.lower())
            params: dict[str, Any] = {"new": False}
            if resource is None:
                resource, params = self._new(state, call, body)
            else:
                apply_tags(resource, body)
            latency = self.config.latency.disks
            headers = self.begin(state, call, "create", resource, latency, **params)
            headers["x-ms-ratelimit-remaining-resource"] = (
                "Microsoft.Compute/CreateUpdateDisks3Min;995,"
                "Microsoft.Compute/CreateUpdateDisks30Min;7993"
            )
            return json_response(202, self.render(state, resource, "Updating"), headers)

    def _new(
        self, state: State, call: Call, body: dict[str, Any]
    ) -> tuple[Resource, dict[str, Any]]:
        wanted = body.get("properties") or {}
        creation = dict(wanted.get("creationData") or {})
        option = str(creation.get("createOption", "")).lower()
        location = require_location(body)
        disk_uuid = new_unique_id()
        params: dict[str, Any] = {"new": True, "disk": disk_uuid}
        inherited: dict[str, Any] = {}
        if option == "copy":
            source = find(state, str(creation.get("sourceResourceId", "")))
            inherited = source["body"]["properties"]
            creation["sourceUniqueId"] = inherited["uniqueId"]
            snapshot = source["lab"].get("snapshot")
            if snapshot is None:
                snapshot = self.library.disk(source["lab"]["disk"]).snapshot()
            params |= {"source": source["lab"]["disk"], "source_snapshot": snapshot}
        elif option != "empty":
            message = f"createOption '{creation.get('createOption')}' is not supported here."
            raise ArmError(400, "InvalidParameter", message)
        size = self._size(wanted, inherited)
        properties = {
            **common_properties(size, disk_uuid, creation),
            **{
                name: wanted.get(name, inherited.get(name))
                for name in ("osType", "hyperVGeneration")
                if wanted.get(name, inherited.get(name))
            },
        }
        if option == "empty":
            self.library.create(disk_uuid, size)
        sku = (body.get("sku") or {}).get("name", "Premium_LRS")
        resource = new_resource(
            call.resource_id,
            DISKS,
            {
                "location": location,
                "tags": dict(body.get("tags") or {}),
                "sku": {"name": sku, "tier": sku.partition("_")[0]},
                "properties": properties,
            },
            {"disk": disk_uuid},
        )
        state["resources"][resource["id"].lower()] = resource
        return resource, params

    def _size(self, wanted: dict[str, Any], inherited: dict[str, Any]) -> int:
        least = int(inherited.get("diskSizeBytes", 0))
        size = int(wanted.get("diskSizeGB") or 0) * GIBIBYTE or least
        if size <= 0 or size < least:
            message = "Required parameter 'disk.diskSizeGB' is missing or smaller than the source."
            raise ArmError(400, "InvalidParameter", message)
        return size

    def _copy(self, operation: Operation) -> None:
        params = operation["params"]
        if not params.get("source_snapshot"):
            return
        view = self.library.disk(params["source"]).view(params["source_snapshot"])
        with self.store.reading() as state:
            size = find(state, operation["resource"])["body"]["properties"]["diskSizeBytes"]
        self.library.copy(params["disk"], view, size)

    def _finish_create(self, state: State, operation: Operation) -> Any:
        # The snapshot that a copy of a disk was made from has no resource, so it goes now.
        if operation["params"].pop("source", None):
            self.library.collect(state)
        return self.render(state, find(state, operation["resource"], DISKS))

    def _undo_create(self, state: State, operation: Operation) -> None:
        if operation["params"]["new"]:
            resource = state["resources"].pop(operation["resource"].lower(), None)
            if resource is not None:
                self.forget(state, resource)

    def freeze(self, resource: Resource) -> str:
        """A disk that is being exported does not change: freeze it for the SAS's life."""
        return self.library.disk(resource["lab"]["disk"]).snapshot()

    def check_grant(self, state: State, resource: Resource) -> None:
        """A disk can be exported only while no running machine uses it."""
        if disk_state(state, resource) == "Attached":
            raise self.refuse("beginGetAccess", resource, "it is attached to a running VM")

    def check_delete(self, state: State, resource: Resource) -> None:
        """An attached disk cannot be deleted."""
        owner = resource["body"].get("managedBy")
        if owner:
            message = (
                f"Disk {resource['name']} is attached to VM {owner}. "
                "Detach the disk from the VM before deleting it."
            )
            raise ArmError(409, "OperationNotAllowed", message)

    def check_patch(self, state: State, resource: Resource, body: dict[str, Any]) -> None:
        """Grow the disk if asked to; disks never shrink, nor grow while a machine runs."""
        gibibytes = (body.get("properties") or {}).get("diskSizeGB")
        if gibibytes is None:
            return
        size = int(gibibytes) * GIBIBYTE
        properties = resource["body"]["properties"]
        if size < properties["diskSizeBytes"]:
            raise ArmError(400, "ResizeDiskError", "Disks can only be made larger.")
        if disk_state(state, resource) not in ("Unattached", "Reserved"):
            raise self.refuse("resize", resource, "it is in use")
        self.library.disk(resource["lab"]["disk"]).resize(size)
        properties.update(size_properties(size))
