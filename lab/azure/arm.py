"""The front of Resource Manager: who is asking, what for, and whether anything forbids it.

Authentication, permissions, locks, misbehaviour and the headers every answer carries are here; what
a request then does is the providers' business (disks, snapshots, virtual machines, network).
"""

from __future__ import annotations

import fnmatch
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from lab.azure import misbehave
from lab.azure.errors import ArmError
from lab.azure.http import Request, Response
from lab.azure.identity import Identity
from lab.azure.operations import Operations
from lab.azure.store import State, Store
from lab.chaos import Action, Chaos

GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
COMPUTE = GROUP + "/providers/Microsoft.Compute"
COMPUTE_WIDE = "/subscriptions/{subscription}/providers/Microsoft.Compute"
NETWORK = GROUP + "/providers/Microsoft.Network"

# ARM counts requests per subscription and hour and tells what is left; clients may look at it.
READS_PER_HOUR = 11999
WRITES_PER_HOUR = 1199


@dataclass
class Call:
    """One request on its way to a provider, with what its path says."""

    request: Request
    operation: str
    params: dict[str, str]
    action: Action | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def resource_id(self) -> str:
        """The path without an action at its end, as the client wrote it."""
        path = self.request.path.rstrip("/")
        if self.params.get("verb"):
            path = path.rsplit("/", 1)[0]
        return path

    @property
    def api_version(self) -> str:
        """The api-version of the request."""
        return self.request.query.get("api-version", "")

    @property
    def fail(self) -> dict[str, str] | None:
        """How the operation that this call begins shall fail, if a rule wants it to."""
        if self.action is None or self.action.kind != "lro_fail":
            return None
        return {
            "code": self.action.code or "InternalExecutionError",
            "message": self.action.message or "An internal execution error occurred.",
        }

    def json(self) -> dict[str, Any]:
        """The body. Raises :class:`ArmError` if it is not a JSON object."""
        try:
            return self.request.json()
        except ValueError as error:
            message = f"The request content was invalid: {error}"
            raise ArmError(400, "InvalidRequestContent", message) from error


Handler = Callable[[Call], Response]


@dataclass(frozen=True)
class Route:
    """One entry of the routing table; ``permission`` is the RBAC action it needs."""

    method: str
    pattern: re.Pattern[str]
    operation: str
    permission: str
    handler: Handler


class ResourceManager:
    """Routes, and what is checked before any of them."""

    def __init__(
        self, store: Store, operations: Operations, identity: Identity, chaos: Chaos
    ) -> None:
        """Made once by the emulator; providers then add their routes."""
        self.store = store
        self.operations = operations
        self._identity = identity
        self._chaos = chaos
        self._routes: list[Route] = []
        self._counts = {"reads": READS_PER_HOUR, "writes": WRITES_PER_HOUR}
        self._hour = 0
        for collection in ("operations", "DiskOperations"):
            self.route(
                "GET",
                f"{COMPUTE_WIDE}/locations/{{location}}/{collection}/{{operation}}",
                "operations.get",
                self._poll,
            )

    def route(self, method: str, template: str, operation: str, handler: Handler) -> None:
        """Add a route; ``{name}`` in the template matches one segment, in any case."""
        verb = ""
        match = re.search(r"/\{verb:(\w+)\}$", template)
        if match:
            verb, template = match.group(1), template[: match.start()] + f"/(?P<verb>{match[1]})"
        expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        pattern = re.compile(expression + "/?", re.IGNORECASE)
        permission = _permission(method, template, verb)
        self._routes.append(Route(method, pattern, operation, permission, handler))

    def handle(self, request: Request) -> Response:
        """Answer one request; every refusal becomes an answer too."""
        try:
            self._identity.check(request)
            response = self._dispatch(request)
        except ArmError as error:
            response = error.response()
        return Response(
            response.status,
            {**self._common_headers(request.method), **response.headers},
            response.body,
            close=response.close,
        )

    def _dispatch(self, request: Request) -> Response:
        route, params = self._find(request)
        call = Call(request, route.operation, params)
        call.action = self._chaos.consult(route.operation, request.path)
        misbehave.before_arm(call.action, self._chaos)
        with self.store.reading() as state:
            _check_scope(state, params)
            _check_permission(state, request, route.permission)
            _check_locks(state, request, route.permission)
        if not call.api_version:
            message = "The api-version query parameter (?api-version=) is required."
            raise ArmError(400, "MissingApiVersionParameter", message)
        response = route.handler(call)
        misbehave.after(call.action)
        return response

    def _find(self, request: Request) -> tuple[Route, dict[str, str]]:
        known_path = False
        for route in self._routes:
            match = route.pattern.fullmatch(request.path)
            if match and route.method == request.method:
                return route, match.groupdict()
            known_path = known_path or match is not None
        if known_path:
            message = f"The requested resource does not support http method '{request.method}'."
            raise ArmError(405, "MethodNotAllowed", message)
        message = f"The resource type or path '{request.path}' could not be found."
        raise ArmError(404, "InvalidResourceType", message)

    def _poll(self, call: Call) -> Response:
        return self.operations.poll(call.request, call.params["operation"])

    def _common_headers(self, method: str) -> dict[str, str]:
        hour = int(time.time()) // 3600
        if hour != self._hour:
            self._hour = hour
            self._counts = {"reads": READS_PER_HOUR, "writes": WRITES_PER_HOUR}
        kind = "reads" if method in ("GET", "HEAD") else "writes"
        self._counts[kind] = max(0, self._counts[kind] - 1)
        request_id = str(uuid.uuid4())
        return {
            "Date": formatdate(usegmt=True),
            "Cache-Control": "no-cache",
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": request_id,
            f"x-ms-ratelimit-remaining-subscription-{kind}": str(self._counts[kind]),
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        }


def _permission(method: str, template: str, verb: str) -> str:
    """The RBAC action, such as ``Microsoft.Compute/snapshots/beginGetAccess/action``."""
    plain = re.sub(r"\(\?P<verb>\w+\)", "", template)
    _, _, provider = plain.rpartition("/providers/")
    parts = provider.strip("/").split("/")
    if not provider:
        kind = "Microsoft.Resources/subscriptions/resourceGroups"
    else:
        kind = "/".join([parts[0], *(part for part in parts[1:] if not part.startswith("{"))])
    if verb:
        return f"{kind}/{verb}/action"
    suffix = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}
    return f"{kind}/{suffix.get(method, 'write')}"


def _check_scope(state: State, params: dict[str, str]) -> None:
    subscription, group = params.get("subscription"), params.get("group")
    if subscription is None:
        return
    prefix = f"/subscriptions/{subscription}".lower()
    if not any(key.startswith(prefix + "/") for key in state["groups"]):
        message = f"The subscription '{subscription}' could not be found."
        raise ArmError(404, "SubscriptionNotFound", message)
    if group is not None and f"{prefix}/resourcegroups/{group.lower()}" not in state["groups"]:
        message = f"Resource group '{group}' could not be found."
        raise ArmError(404, "ResourceGroupNotFound", message)


def _check_permission(state: State, request: Request, permission: str) -> None:
    granted = state["permissions"]

    def matches(patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(permission.lower(), p.lower()) for p in patterns)

    if matches(granted["actions"]) and not matches(granted.get("notActions", [])):
        return
    message = (
        "The client 'failback lab' with object id '00000000-0000-0000-0000-00000000feed' does not "
        f"have authorization to perform action '{permission}' over scope '{request.path}' or the "
        "scope is invalid. If access was recently granted, please refresh your credentials."
    )
    raise ArmError(403, "AuthorizationFailed", message)


def _check_locks(state: State, request: Request, permission: str) -> None:
    if request.method in ("GET", "HEAD") or "/locks/" in permission.lower():
        return
    path = request.path.lower()
    for lock in state["locks"].values():
        level = lock["properties"]["level"].lower()
        scope = lock["id"].lower().partition("/providers/microsoft.authorization/")[0]
        forbids = level == "readonly" or request.method == "DELETE"
        if forbids and (path == scope or path.startswith(scope + "/")):
            verb = "delete" if request.method == "DELETE" else "write"
            message = (
                f"The scope '{request.path}' cannot perform {verb} operation because following "
                f"scope(s) are locked: '{scope}'. Please remove the lock and try again."
            )
            raise ArmError(409, "ScopeLocked", message)
