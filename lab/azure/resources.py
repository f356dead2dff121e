"""What all resources have in common: being found, listed in pages, tagged, and told apart by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from lab.azure.arm import Call
from lab.azure.errors import ArmError, not_found
from lab.azure.http import Response, json_response
from lab.azure.store import State

Resource = dict[str, Any]

DISKS = "Microsoft.Compute/disks"
SNAPSHOTS = "Microsoft.Compute/snapshots"
MACHINES = "Microsoft.Compute/virtualMachines"
INTERFACES = "Microsoft.Network/networkInterfaces"
NETWORKS = "Microsoft.Network/virtualNetworks"


def make_id(subscription: str, group: str, resource_type: str, name: str) -> str:
    """The id of a resource, in the case that Azure uses."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{resource_type}/{name}"


def find(state: State, resource_id: str, resource_type: str | None = None) -> Resource:
    """The resource with this id, in any case. Raises :class:`ArmError` 404."""
    resource: Resource | None = state["resources"].get(resource_id.lower())
    if resource is None or (resource_type and resource["type"] != resource_type):
        parts = resource_id.strip("/").split("/")
        group = parts[3] if len(parts) > 3 else ""
        kind = resource_type or "/".join(parts[5:7])
        raise not_found(kind, parts[-1], group)
    return resource


def same_id(left: str | None, right: str | None) -> bool:
    """Whether two ids name the same resource."""
    return bool(left and right) and str(left).lower() == str(right).lower()


def within(state: State, scope: str, resource_type: str) -> list[Resource]:
    """The resources of a type below a subscription or resource group, by id."""
    prefix = scope.rstrip("/").lower() + "/"
    return [
        resource
        for key, resource in sorted(state["resources"].items())
        if key.startswith(prefix) and resource["type"] == resource_type
    ]


def list_scope(call: Call) -> str:
    """The subscription or resource group whose resources a list request is about."""
    return call.request.path.lower().partition("/providers/")[0]


def list_response(
    call: Call,
    resources: Iterable[Resource],
    render: Callable[[Resource], dict[str, Any]],
    page_size: int,
    base_url: str,
) -> Response:
    """One page of a list, with the link to the next."""
    everything = list(resources)
    start = int(call.request.query.get("$skiptoken", "0") or 0)
    body: dict[str, Any] = {"value": [render(r) for r in everything[start : start + page_size]]}
    if start + page_size < len(everything):
        body["nextLink"] = (
            f"{base_url}{quote(call.request.path)}"
            f"?api-version={call.api_version}&$skiptoken={start + page_size}"
        )
    return json_response(200, body)


def apply_tags(resource: Resource, body: dict[str, Any]) -> None:
    """Replace a resource's tags by those of a PATCH or PUT, if it has any."""
    if body.get("tags") is not None:
        resource["body"]["tags"] = dict(body["tags"])


def require_location(body: dict[str, Any]) -> str:
    """The location of a new resource. Raises :class:`ArmError` if it has none."""
    location = body.get("location")
    if not location:
        message = "The location property is required for this definition."
        raise ArmError(400, "LocationRequired", message)
    return str(location).replace(" ", "").lower()
