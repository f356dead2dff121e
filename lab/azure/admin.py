"""The lab's own way in, on plain loopback HTTP under ``/lab/``: look at everything, touch bytes.

It is for tests, demos and people; nothing of it exists in Azure and production code never calls it.

====== ========================= ===================================================================
GET    /lab/state                everything: groups, resources, operations, grants, locks
GET    /lab/leftovers            what a run may have left: snapshots, grants, disks not seeded
GET    /lab/guests               what the guest of each machine says, by machine name
POST   /lab/guests/VM            set guest attributes, such as ``{"refuse_shutdown": true}``
POST   /lab/vms                  seed a machine (the body that ``lab.azure.seed`` makes)
PUT    /lab/permissions          ``{"actions": ["*"], "notActions": []}``: what the caller may do
PUT    /lab/settings             change settings, such as ``{"export_mib_per_second": 40}``
GET    /lab/disks/NAME           ``?offset=&length=``: bytes; without them: size, path, snapshots
PUT    /lab/disks/NAME           ``?offset=``: write the body there
DELETE /lab/disks/NAME           ``?offset=&length=``: clear pages
====== ========================= ===================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lab.azure import misbehave, seed
from lab.azure.errors import ArmError
from lab.azure.guests import Guests
from lab.azure.http import Request, Response, json_response
from lab.azure.identity import PATH as IDENTITY_PATH
from lab.azure.identity import Identity
from lab.azure.library import Library
from lab.azure.resources import DISKS, MACHINES, SNAPSHOTS, Resource, find
from lab.azure.store import State, Store
from lab.chaos import Chaos
from lab.disks import Disk, DiskError


class Admin:
    """Answers the local port: the managed identity and everything under ``/lab/``."""

    def __init__(
        self,
        store: Store,
        library: Library,
        guests: Guests,
        identity: Identity,
        change_settings: Callable[[dict[str, Any]], None],
        chaos: Chaos,
    ) -> None:
        """Made once by the emulator."""
        self._change_settings = change_settings
        self._chaos = chaos
        self._store = store
        self._library = library
        self._guests = guests
        self._identity = identity

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == IDENTITY_PATH and request.method == "GET":
            return self._token(request)
        parts = request.path.strip("/").split("/")
        if parts[0] != "lab" or len(parts) not in (2, 3):
            return json_response(404, {"error": f"no such path: {request.path}"})
        try:
            return self._dispatch(request, parts[1], parts[2] if len(parts) == 3 else "")
        except ArmError as error:
            return error.response()
        except (DiskError, seed.SeedError, ValueError, KeyError) as error:
            return json_response(400, {"error": f"{type(error).__name__}: {error}"})

    def _token(self, request: Request) -> Response:
        """A token, unless a rule for ``identity.token`` of ``azure-arm`` spoils it."""
        action = self._chaos.consult("identity.token")
        try:
            misbehave.before_arm(action, self._chaos)
        except ArmError as error:
            return error.response()
        return self._identity.token(request)

    def _dispatch(self, request: Request, subject: str, name: str) -> Response:
        match (request.method, subject):
            case ("GET", "state"):
                with self._store.reading() as state:
                    return json_response(200, state)
            case ("GET", "leftovers"):
                with self._store.reading() as state:
                    return json_response(200, leftovers(state))
            case ("GET", "guests"):
                return self._list_guests()
            case ("POST", "guests"):
                return self._set_guest(name, request.json())
            case ("POST", "vms"):
                return self._seed(request.json())
            case ("PUT", "permissions"):
                with self._store.changing() as state:
                    state["permissions"] = {"notActions": [], **request.json()}
                return Response(204)
            case ("PUT", "settings"):
                self._change_settings(request.json())
                return Response(204)
            case ("GET" | "PUT" | "DELETE", "disks") if name:
                return self._disk(request, name)
        return json_response(405, {"error": f"{request.method} {request.path} is unknown"})

    def _list_guests(self) -> Response:
        with self._store.reading() as state:
            machines = [r for r in state["resources"].values() if r["type"] == MACHINES]
        body = {
            machine["name"]: {
                "power": machine["lab"]["power"],
                **self._guests.status(machine["id"]),
            }
            for machine in machines
        }
        return json_response(200, body)

    def _set_guest(self, name: str, settings: dict[str, Any]) -> Response:
        with self._store.changing() as state:
            self._guests.set(_by_name(state, MACHINES, name), settings)
        return Response(204)

    def _seed(self, spec: dict[str, Any]) -> Response:
        with self._store.changing() as state:
            machine_id = seed.apply(state, self._library, spec)
            if spec["running"]:
                self._guests.start(state, find(state, machine_id))
        return json_response(201, {"id": machine_id})

    def _disk(self, request: Request, name: str) -> Response:
        with self._store.reading() as state:
            disk = self._library.disk(_by_name(state, DISKS, name)["lab"]["disk"])
        offset = int(request.query.get("offset", "0"))
        if request.method == "PUT":
            disk.write(offset, request.body)
            return Response(204)
        if request.method == "DELETE":
            disk.clear(offset, int(request.query["length"]))
            return Response(204)
        if "length" not in request.query:
            return json_response(200, _describe(disk))
        content = disk.read(offset, int(request.query["length"]))
        return Response(200, {"Content-Type": "application/octet-stream"}, content)


def leftovers(state: State) -> dict[str, Any]:
    """What a run that cleaned up has none of."""
    now = time.time()
    resources = state["resources"].values()
    return {
        "snapshots": [r["id"] for r in resources if r["type"] == SNAPSHOTS],
        "grants": [g["resource"] for g in state["grants"].values() if g["expires"] > now],
        "disks": [r["id"] for r in resources if r["type"] == DISKS and not r["lab"].get("seeded")],
    }


def _by_name(state: State, resource_type: str, name: str) -> Resource:
    for resource in state["resources"].values():
        if resource["type"] == resource_type and resource["name"].lower() == name.lower():
            return dict(resource)
    raise KeyError(name)


def _describe(disk: Disk) -> dict[str, Any]:
    return {
        "size": disk.size,
        "path": str(disk.directory / "live.raw"),
        "snapshots": disk.snapshots(),
    }
