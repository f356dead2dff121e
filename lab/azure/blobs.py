"""What managed disks and snapshots have in common: read, list, tag, grant access, delete."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

from lab.azure import access
from lab.azure.arm import COMPUTE, COMPUTE_WIDE, Call, ResourceManager
from lab.azure.config import Config
from lab.azure.errors import ArmError
from lab.azure.http import Response, json_response
from lab.azure.library import Library
from lab.azure.operations import Operation, Work
from lab.azure.resources import (
    MACHINES,
    Resource,
    apply_tags,
    find,
    list_response,
    list_scope,
    within,
)
from lab.azure.store import State

GIBIBYTE = 1024**3


class BlobProvider:
    """What disks and snapshots share. ``kind`` is ``disks`` or ``snapshots``."""

    kind: str
    resource_type: str

    def __init__(
        self,
        manager: ResourceManager,
        library: Library,
        config: Config,
        arm_url: str,
        data_url: str,
    ) -> None:
        """Register the routes and the operations of this type of resource."""
        self.manager = manager
        self.store = manager.store
        self.operations = manager.operations
        self.library = library
        self.config = config
        self._arm_url = arm_url
        self._data_url = data_url
        one, every = f"{COMPUTE}/{self.kind}/{{name}}", f"{COMPUTE}/{self.kind}"
        route = manager.route
        route("GET", one, f"{self.kind}.get", self.get)
        route("PUT", one, f"{self.kind}.createOrUpdate", self.put)
        route("PATCH", one, f"{self.kind}.update", self.patch)
        route("DELETE", one, f"{self.kind}.delete", self.delete)
        route("GET", every, f"{self.kind}.listByResourceGroup", self.list_page)
        route("GET", f"{COMPUTE_WIDE}/{self.kind}", f"{self.kind}.list", self.list_page)
        begin, end = "{verb:beginGetAccess}", "{verb:endGetAccess}"
        route("POST", f"{one}/{begin}", f"{self.kind}.beginGetAccess", self.begin_access)
        route("POST", f"{one}/{end}", f"{self.kind}.endGetAccess", self.end_access)
        register = self.operations.register
        register(f"{self.kind}.update", Work(self._finish_update))
        register(f"{self.kind}.delete", Work(self._finish_delete))
        register(f"{self.kind}.beginGetAccess", Work(self._granted, undo=self._grant_failed))
        register(f"{self.kind}.endGetAccess", Work(self._finish_revoke))

    def put(self, call: Call) -> Response:
        """Create or update; different for disks and snapshots."""
        raise ArmError(405, "MethodNotAllowed", "This resource cannot be created.")

    def check_grant(self, state: State, resource: Resource) -> None:
        """Refuse access that only this type of resource refuses."""

    def freeze(self, resource: Resource) -> str:
        """The id of the frozen content that a grant gives access to."""
        return str(resource["lab"]["snapshot"])

    def check_delete(self, state: State, resource: Resource) -> None:
        """Refuse a deletion that only this type of resource refuses."""

    def get(self, call: Call) -> Response:
        """One resource."""
        with self.store.reading() as state:
            resource = find(state, call.resource_id, self.resource_type)
            return json_response(200, self.render(state, resource))

    def list_page(self, call: Call) -> Response:
        """The resources of a group or subscription."""
        with self.store.reading() as state:
            return list_response(
                call,
                within(state, list_scope(call), self.resource_type),
                lambda resource: self.render(state, resource),
                self.config.list_page_size,
                self._arm_url,
            )

    def patch(self, call: Call) -> Response:
        """Change tags, network policy or, for a disk, its size."""
        body = call.json()
        with self.store.changing() as state:
            resource = find(state, call.resource_id, self.resource_type)
            self.check_patch(state, resource, body)
            apply_tags(resource, body)
            wanted = body.get("properties") or {}
            for name in ("networkAccessPolicy", "publicNetworkAccess", "diskAccessId"):
                if name in wanted:
                    resource["body"]["properties"][name] = wanted[name]
            if "sku" in body:
                resource["body"]["sku"] = {**resource["body"].get("sku", {}), **body["sku"]}
            headers = self.begin(state, call, "update", resource, self.config.latency.disks)
            return json_response(202, self.render(state, resource, "Updating"), headers)

    def check_patch(self, state: State, resource: Resource, body: dict[str, Any]) -> None:
        """Refuse or carry out what only this type of resource can change."""

    def delete(self, call: Call) -> Response:
        """Begin to delete; what is not there needs no deleting (204)."""
        with self.store.changing() as state:
            resource = state["resources"].get(call.resource_id.lower())
            if resource is None:
                return Response(204)
            if access.active_grant(state, resource["id"]):
                raise self.refuse(
                    "delete", resource, "it has an active shared access signature; revoke it first"
                )
            self.check_delete(state, resource)
            latency = self.config.latency.disks
            headers = self.begin(state, call, "delete", resource, latency, disk=None)
            return Response(202, headers)

    def begin_access(self, call: Call) -> Response:
        """Begin to grant access by signed URL."""
        body = call.json()
        with self.store.changing() as state:
            resource = find(state, call.resource_id, self.resource_type)
            seconds = access.check_duration(body)
            if body.get("access") != "Read":
                reason = f"access '{body.get('access')}' is only for disks that are being uploaded"
                raise self.refuse("beginGetAccess", resource, reason)
            access.check_policy(resource)
            self.check_grant(state, resource)
            if access.active_grant(state, resource["id"]) is None:
                access.check_family(state, resource, self.config.access_per_family)
                frozen = self.freeze(resource)
            else:
                frozen = ""
            disk = resource["lab"]["disk"]
            url, new = access.grant(state, self._data_url, resource, disk, frozen, seconds)
            latency = self.config.latency.access
            headers = self.begin(state, call, "beginGetAccess", resource, latency, url=url, new=new)
            headers["x-ms-ratelimit-remaining-resource"] = (
                "Microsoft.Compute/HighCostDiskHydrate3Min;999,"
                "Microsoft.Compute/HighCostDiskHydrate30Min;7999"
            )
            return Response(202, headers)

    def end_access(self, call: Call) -> Response:
        """Begin to revoke access; revoking what is not granted succeeds, as in Azure."""
        with self.store.changing() as state:
            resource = find(state, call.resource_id, self.resource_type)
            latency = self.config.latency.access
            headers = self.begin(state, call, "endGetAccess", resource, latency)
            return Response(202, headers)

    def begin(
        self,
        state: State,
        call: Call,
        verb: str,
        resource: Resource,
        seconds: float,
        **params: Any,
    ) -> dict[str, str]:
        """Begin a long-running operation on ``resource``; returns its headers."""
        return self.operations.begin(
            state,
            f"{self.kind}.{verb}",
            resource["id"],
            location=resource["body"]["location"],
            seconds=seconds,
            api_version=call.api_version,
            fail=call.fail,
            **params,
        )

    def render(
        self, state: State, resource: Resource, provisioning: str | None = None
    ) -> dict[str, Any]:
        """The resource as it goes over the wire, with the state that follows from others."""
        properties = dict(resource["body"]["properties"])
        properties["diskState"] = disk_state(state, resource)
        if provisioning:
            properties["provisioningState"] = provisioning
        return {**resource["body"], "properties": properties}

    def refuse(self, verb: str, resource: Resource, reason: str) -> ArmError:
        """The compute provider's refusal of an operation in the present state."""
        name = resource["name"]
        message = f"Operation '{verb}' is not allowed on {self.kind[:-1]} '{name}' since {reason}."
        return ArmError(409, "OperationNotAllowed", message)

    def _finish_update(self, state: State, operation: Operation) -> Any:
        resource = find(state, operation["resource"], self.resource_type)
        return self.render(state, resource)

    def _finish_delete(self, state: State, operation: Operation) -> None:
        resource = state["resources"].pop(operation["resource"].lower(), None)
        if resource is not None:
            self.forget(state, resource)

    def forget(self, state: State, resource: Resource) -> None:
        """Give up the bytes of a resource that is gone."""
        access.revoke(state, resource["id"])
        self.library.collect(state)

    def _granted(self, state: State, operation: Operation) -> Any:
        return {"accessSAS": operation["params"]["url"]}

    def _grant_failed(self, state: State, operation: Operation) -> None:
        if operation["params"]["new"]:
            access.revoke(state, operation["resource"])
            self.library.collect(state)

    def _finish_revoke(self, state: State, operation: Operation) -> None:
        access.revoke(state, operation["resource"])
        self.library.collect(state)


def disk_state(state: State, resource: Resource) -> str:
    """Azure's ``diskState``: who is using the disk or snapshot."""
    if access.active_grant(state, resource["id"]):
        return "ActiveSAS"
    owner = state["resources"].get(str(resource["body"].get("managedBy", "")).lower())
    if owner is None or owner["type"] != MACHINES:
        return "Unattached"
    return "Reserved" if owner["lab"]["power"] == "deallocated" else "Attached"


def size_properties(size: int) -> dict[str, int]:
    """A size in bytes as resources state it; gibibytes are rounded up."""
    return {"diskSizeGB": -(-size // GIBIBYTE), "diskSizeBytes": size}


def timestamp(moment: float | None = None) -> str:
    """A time in UTC with seven digits after the second, as Azure writes it."""
    now = datetime.fromtimestamp(moment if moment is not None else time.time(), UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def common_properties(size: int, unique_id: str, creation: dict[str, Any]) -> dict[str, Any]:
    """The properties that disks and snapshots both have."""
    return {
        **size_properties(size),
        "uniqueId": unique_id,
        "creationData": creation,
        "timeCreated": timestamp().replace("Z", "+00:00"),
        "provisioningState": "Succeeded",
        "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
        "networkAccessPolicy": "AllowAll",
        "publicNetworkAccess": "Enabled",
        "dataAccessAuthMode": "None",
    }


def new_unique_id() -> str:
    """The id that tells a disk from another that had its name before."""
    return str(uuid.uuid4())
