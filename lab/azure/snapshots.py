"""Snapshots of managed disks, with the limits that Azure puts on incremental ones."""

from __future__ import annotations

import time
import uuid
from typing import Any

from lab.azure.arm import Call
from lab.azure.blobs import BlobProvider, common_properties, new_unique_id, timestamp
from lab.azure.errors import ArmError, throttled
from lab.azure.http import Response, json_response
from lab.azure.operations import Operation, Work
from lab.azure.resources import (
    DISKS,
    SNAPSHOTS,
    Resource,
    apply_tags,
    find,
    require_location,
    same_id,
)
from lab.azure.store import State, new_resource

MAX_ALIVE = 500  # incremental snapshots of one disk
SNAPSHOT_SKUS = ("Standard_LRS", "Premium_LRS", "Standard_ZRS")


class Snapshots(BlobProvider):
    """``Microsoft.Compute/snapshots``."""

    kind = "snapshots"
    resource_type = SNAPSHOTS

    def __init__(self, *args: Any) -> None:
        """Register what all exports have, and what taking a snapshot takes."""
        super().__init__(*args)
        self.operations.register("snapshots.create", Work(self._finish, undo=self._undo))

    def put(self, call: Call) -> Response:
        """Take a snapshot at this very moment; asking again for the same one takes no second."""
        body = call.json()
        with self.store.changing() as state:
            existing = state["resources"].get(call.resource_id.lower())
            if existing is not None:
                self._check_same(existing, body)
                apply_tags(existing, body)
                resource = existing
            else:
                resource = self._take(state, call, body)
            headers = self.begin(
                state,
                call,
                "create",
                resource,
                self.config.latency.snapshots,
                new=existing is None,
            )
            headers["x-ms-ratelimit-remaining-resource"] = (
                "Microsoft.Compute/HighCostSnapshotCreateHydrate3Min;239,"
                "Microsoft.Compute/HighCostSnapshotCreateHydrate30Min;1918"
            )
            return json_response(202, self.render(state, resource, "Updating"), headers)

    def _take(self, state: State, call: Call, body: dict[str, Any]) -> Resource:
        location = require_location(body)
        wanted = body.get("properties") or {}
        source = self._source(state, wanted.get("creationData") or {})
        if source["body"]["location"] != location:
            message = "A snapshot must be in the location of its source disk."
            raise ArmError(400, "InvalidParameter", message)
        sku = (body.get("sku") or {}).get("name", "Standard_LRS")
        if sku not in SNAPSHOT_SKUS:
            raise ArmError(400, "InvalidParameter", f"The snapshot sku '{sku}' is not supported.")
        incremental = bool(wanted.get("incremental"))
        disk_uuid = source["lab"]["disk"]
        if incremental:
            self._check_limits(state, disk_uuid)
        snapshot_id = self.library.disk(disk_uuid).snapshot()
        properties = self._properties(source, wanted, incremental)
        resource = new_resource(
            call.resource_id,
            SNAPSHOTS,
            {
                "location": location,
                "tags": dict(body.get("tags") or {}),
                "sku": {"name": sku, "tier": sku.partition("_")[0]},
                "properties": properties,
            },
            {
                "disk": disk_uuid,
                "snapshot": snapshot_id,
                "family": properties.get("incrementalSnapshotFamilyId"),
                "timestamp": timestamp(),
            },
        )
        state["resources"][resource["id"].lower()] = resource
        return resource

    def _source(self, state: State, creation: dict[str, Any]) -> Resource:
        option = str(creation.get("createOption", ""))
        if option.lower() != "copy":
            message = f"createOption '{option}' is not supported for snapshots here; use 'Copy'."
            raise ArmError(400, "InvalidParameter", message)
        return find(state, str(creation.get("sourceResourceId", "")), DISKS)

    def _properties(
        self, source: Resource, wanted: dict[str, Any], incremental: bool
    ) -> dict[str, Any]:
        origin = source["body"]["properties"]
        creation = {
            "createOption": "Copy",
            "sourceResourceId": source["id"],
            "sourceUniqueId": origin["uniqueId"],
        }
        properties = common_properties(origin["diskSizeBytes"], new_unique_id(), creation)
        for name in ("osType", "hyperVGeneration"):
            if name in origin:
                properties[name] = origin[name]
        for name in ("networkAccessPolicy", "publicNetworkAccess", "diskAccessId"):
            if name in wanted:
                properties[name] = wanted[name]
        properties["incremental"] = incremental
        if incremental:
            family = uuid.uuid5(uuid.UUID(origin["uniqueId"]), "incremental snapshots")
            properties["incrementalSnapshotFamilyId"] = str(family)
            # Standard and premium disks: usable at once. (Ultra disks copy in the background.)
            properties["completionPercent"] = 100.0
            properties["snapshotAccessState"] = "Available"
        return properties

    def _check_limits(self, state: State, disk_uuid: str) -> None:
        alive = sum(
            1
            for resource in state["resources"].values()
            if resource["lab"].get("family") and resource["lab"].get("disk") == disk_uuid
        )
        if alive >= MAX_ALIVE:
            message = f"At most {MAX_ALIVE} incremental snapshots of a disk may exist."
            raise ArmError(409, "OperationNotAllowed", message)
        window = self.config.snapshot_window_seconds
        now = time.time()
        recent = [t for t in state["recent_snapshots"].get(disk_uuid, []) if t > now - window]
        if len(recent) >= self.config.snapshots_per_window:
            message = (
                f"At most {self.config.snapshots_per_window} incremental snapshots of a disk may "
                f"be created in {window:g} seconds."
            )
            raise throttled(recent[0] + window - now, "IncrementalSnapshotCreate", message)
        state["recent_snapshots"][disk_uuid] = [*recent, now]

    def _check_same(self, existing: Resource, body: dict[str, Any]) -> None:
        wanted = body.get("properties") or {}
        source = (wanted.get("creationData") or {}).get("sourceResourceId")
        properties = existing["body"]["properties"]
        if source and not same_id(source, properties["creationData"]["sourceResourceId"]):
            message = "Changing property 'creationData.sourceResourceId' is not allowed."
            raise ArmError(409, "PropertyChangeNotAllowed", message)
        if "incremental" in wanted and wanted["incremental"] != properties["incremental"]:
            message = "Changing property 'incremental' is not allowed."
            raise ArmError(409, "PropertyChangeNotAllowed", message)

    def _finish(self, state: State, operation: Operation) -> Any:
        return self.render(state, find(state, operation["resource"], SNAPSHOTS))

    def _undo(self, state: State, operation: Operation) -> None:
        if operation["params"]["new"]:
            resource = state["resources"].pop(operation["resource"].lower(), None)
            if resource is not None:
                self.forget(state, resource)

    def check_grant(self, state: State, resource: Resource) -> None:
        """A snapshot whose background copy is unfinished cannot be exported."""
        properties = resource["body"]["properties"]
        if properties.get("completionPercent", 100) < 100:
            raise self.refuse("beginGetAccess", resource, "its background copy is not complete")
