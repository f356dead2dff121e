"""What else a failback asks Resource Manager: locks, permissions, groups, sizes, quota, network."""

from __future__ import annotations

from typing import Any

from lab.azure.arm import COMPUTE_WIDE, GROUP, NETWORK, Call, ResourceManager
from lab.azure.config import Config
from lab.azure.errors import ArmError
from lab.azure.http import Response, json_response
from lab.azure.resources import (
    INTERFACES,
    NETWORKS,
    Resource,
    find,
    list_response,
    list_scope,
    within,
)
from lab.azure.store import new_resource

AUTHORIZATION = "(?P<scope>/subscriptions/.+?)/providers/Microsoft.Authorization"

# (name, vCPUs, memory in GiB, highest number of data disks, premium storage)
SIZES = (
    ("Standard_B2s", 2, 4, 4, True),
    ("Standard_D2s_v5", 2, 8, 4, True),
    ("Standard_D4s_v5", 4, 16, 8, True),
    ("Standard_D8s_v5", 8, 32, 16, True),
    ("Standard_A2_v2", 2, 4, 4, False),
)
CORES_LIMIT = 100


class Surroundings:
    """The smaller providers, in as far as clients of compute need them."""

    def __init__(self, manager: ResourceManager, config: Config, arm_url: str) -> None:
        """Register the routes."""
        self._store = manager.store
        self._config = config
        self._arm_url = arm_url
        route = manager.route
        locks = f"{AUTHORIZATION}/locks"
        route("GET", locks, "locks.list", self.list_locks)
        route("GET", f"{locks}/{{name}}", "locks.get", self.get_lock)
        route("PUT", f"{locks}/{{name}}", "locks.createOrUpdate", self.put_lock)
        route("DELETE", f"{locks}/{{name}}", "locks.delete", self.delete_lock)
        route("GET", f"{AUTHORIZATION}/permissions", "permissions.list", self.permissions)
        route("GET", "/subscriptions/{subscription}", "subscriptions.get", self.subscription)
        route("GET", GROUP, "resourceGroups.get", self.group)
        route("HEAD", GROUP, "resourceGroups.checkExistence", lambda call: Response(204))
        route("GET", f"{COMPUTE_WIDE}/skus", "skus.list", self.skus)
        usages = f"{COMPUTE_WIDE}/locations/{{location}}/usages"
        route("GET", usages, "usages.list", self.usages)
        interface = f"{NETWORK}/networkInterfaces"
        wide = "/subscriptions/{subscription}/providers/Microsoft.Network/networkInterfaces"
        route("GET", f"{interface}/{{name}}", "networkInterfaces.get", self.interface)
        route("GET", interface, "networkInterfaces.list", self.interfaces)
        route("GET", wide, "networkInterfaces.listAll", self.interfaces)
        route("DELETE", f"{interface}/{{name}}", "networkInterfaces.delete", self.delete_interface)
        network = f"{NETWORK}/virtualNetworks/{{name}}"
        route("GET", network, "virtualNetworks.get", self.network)
        route("GET", f"{network}/subnets/{{subnet}}", "subnets.get", self.subnet)

    def list_locks(self, call: Call) -> Response:
        """The locks at a scope and below; ``$filter=atScope()`` means at it and above."""
        scope = call.params["scope"].lower()
        at_scope = "atscope" in call.request.query.get("$filter", "").lower()
        with self._store.reading() as state:
            found = []
            for lock in state["locks"].values():
                where = lock["id"].lower().partition("/providers/microsoft.authorization/")[0]
                above = (scope + "/").startswith(where + "/")
                below = (where + "/").startswith(scope + "/")
                if above or (below and not at_scope):
                    found.append(lock)
        return json_response(200, {"value": found})

    def get_lock(self, call: Call) -> Response:
        """One lock."""
        with self._store.reading() as state:
            lock = state["locks"].get(call.request.path.lower())
        if lock is None:
            raise ArmError(404, "LockNotFound", f"The lock '{call.params['name']}' was not found.")
        return json_response(200, lock)

    def put_lock(self, call: Call) -> Response:
        """Create or change a lock."""
        body = call.json()
        level = (body.get("properties") or {}).get("level")
        if level not in ("CanNotDelete", "ReadOnly"):
            raise ArmError(400, "LockLevelInvalid", f"The lock level '{level}' is not valid.")
        lock = {
            "id": call.request.path,
            "name": call.params["name"],
            "type": "Microsoft.Authorization/locks",
            "properties": body["properties"],
        }
        with self._store.changing() as state:
            new = call.request.path.lower() not in state["locks"]
            state["locks"][call.request.path.lower()] = lock
        return json_response(201 if new else 200, lock)

    def delete_lock(self, call: Call) -> Response:
        """Remove a lock; 204 if there is none."""
        with self._store.changing() as state:
            lock = state["locks"].pop(call.request.path.lower(), None)
        return Response(204 if lock is None else 200)

    def permissions(self, call: Call) -> Response:
        """What the caller may do at a scope."""
        with self._store.reading() as state:
            granted = {"dataActions": [], "notDataActions": [], **state["permissions"]}
        return json_response(200, {"value": [granted]})

    def subscription(self, call: Call) -> Response:
        """The subscription itself."""
        name = call.params["subscription"]
        body = {"id": f"/subscriptions/{name}", "subscriptionId": name, "state": "Enabled"}
        return json_response(200, {**body, "displayName": "failback lab"})

    def group(self, call: Call) -> Response:
        """A resource group; that it exists was checked before."""
        with self._store.reading() as state:
            group = state["groups"][call.request.path.rstrip("/").lower()]
        body = {"type": "Microsoft.Resources/resourceGroups", **group}
        return json_response(200, {**body, "properties": {"provisioningState": "Succeeded"}})

    def skus(self, call: Call) -> Response:
        """The machine sizes that can be had, in every location that is asked about."""
        wanted = call.request.query.get("$filter", "")
        location = wanted.partition("'")[2].partition("'")[0] or "westeurope"
        return json_response(200, {"value": [_sku(location, *size) for size in SIZES]})

    def usages(self, call: Call) -> Response:
        """The quota of cores."""
        name = {"value": "cores", "localizedValue": "Total Regional vCPUs"}
        usage = {"unit": "Count", "currentValue": 4, "limit": CORES_LIMIT, "name": name}
        return json_response(200, {"value": [usage]})

    def interface(self, call: Call) -> Response:
        """One network interface."""
        with self._store.reading() as state:
            return json_response(200, find(state, call.request.path, INTERFACES)["body"])

    def interfaces(self, call: Call) -> Response:
        """The network interfaces of a group or subscription."""
        with self._store.reading() as state:
            return list_response(
                call,
                within(state, list_scope(call), INTERFACES),
                lambda resource: dict(resource["body"]),
                self._config.list_page_size,
                self._arm_url,
            )

    def delete_interface(self, call: Call) -> Response:
        """Delete a network interface that no machine uses."""
        with self._store.changing() as state:
            interface = state["resources"].get(call.request.path.lower())
            if interface is None:
                return Response(204)
            if interface["body"]["properties"].get("virtualMachine"):
                message = f"Network interface '{interface['name']}' is used by a virtual machine."
                raise ArmError(400, "NicInUse", message)
            del state["resources"][call.request.path.lower()]
        return Response(200)

    def network(self, call: Call) -> Response:
        """One virtual network with its subnets."""
        with self._store.reading() as state:
            return json_response(200, find(state, call.request.path, NETWORKS)["body"])

    def subnet(self, call: Call) -> Response:
        """One subnet."""
        network_id = call.request.path.lower().partition("/subnets/")[0]
        with self._store.reading() as state:
            network = find(state, network_id, NETWORKS)
            for subnet in network["body"]["properties"]["subnets"]:
                if subnet["name"].lower() == call.params["subnet"].lower():
                    return json_response(200, subnet)
        message = f"Subnet '{call.params['subnet']}' is not found."
        raise ArmError(404, "NotFound", message)


def _sku(
    location: str, name: str, cores: int, gibibytes: int, disks: int, premium: bool
) -> dict[str, Any]:
    capabilities = {
        "vCPUs": cores,
        "MemoryGB": gibibytes,
        "MaxDataDiskCount": disks,
        "PremiumIO": premium,
        "HyperVGenerations": "V1,V2",
    }
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "locations": [location],
        "locationInfo": [{"location": location, "zones": []}],
        "capabilities": [{"name": key, "value": str(value)} for key, value in capabilities.items()],
        "restrictions": [],
    }


def make_network(subscription: str, group: str, location: str, name: str, prefix: str) -> Resource:
    """A virtual network with one subnet named ``default`` that takes all of it."""
    network_id = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{NETWORKS}/{name}"
    subnet = {
        "id": f"{network_id}/subnets/default",
        "name": "default",
        "type": "Microsoft.Network/virtualNetworks/subnets",
        "properties": {"addressPrefix": prefix, "provisioningState": "Succeeded"},
    }
    properties = {
        "addressSpace": {"addressPrefixes": [prefix]},
        "subnets": [subnet],
        "provisioningState": "Succeeded",
    }
    body = {"location": location, "tags": {}, "properties": properties}
    return new_resource(network_id, NETWORKS, body, {})
