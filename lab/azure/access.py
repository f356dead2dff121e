"""Read access to snapshots and disks by signed URL: granting, extending, revoking, checking.

A URL names a stored policy (``si=``) and no expiry, as Azure's do: the client must remember when it
ends. The snapshots of one disk are versions of one blob of one account; a disk or a full snapshot
is a blob of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from typing import Any
from urllib.parse import quote

from lab.azure.errors import ArmError
from lab.azure.resources import SNAPSHOTS, Resource, same_id
from lab.azure.store import State

MAX_SECONDS = 60 * 24 * 3600  # the longest SAS Azure gives for a disk or snapshot


def active_grant(state: State, resource_id: str) -> dict[str, Any] | None:
    """The grant in force for a resource, if any."""
    for grant in state["grants"].values():
        if same_id(grant["resource"], resource_id) and grant["expires"] > time.time():
            return dict(grant)
    return None


def check_duration(body: dict[str, Any]) -> int:
    """The seconds asked for. Raises :class:`ArmError` 400 if Azure would not give them."""
    seconds = body.get("durationInSeconds")
    if not isinstance(seconds, int) or not 0 < seconds <= MAX_SECONDS:
        message = (
            f"Required parameter 'durationInSeconds' is invalid: {seconds!r}. "
            f"It must be between 1 and {MAX_SECONDS}."
        )
        raise ArmError(400, "InvalidParameter", message)
    return seconds


def check_policy(resource: Resource) -> None:
    """Refuse where the resource's network policy forbids export."""
    properties = resource["body"]["properties"]
    denied = properties.get("networkAccessPolicy") == "DenyAll"
    if denied or properties.get("publicNetworkAccess") == "Disabled":
        message = (
            f"Operation 'beginGetAccess' is not allowed on '{resource['name']}' because its "
            "networkAccessPolicy or publicNetworkAccess does not permit it."
        )
        raise ArmError(409, "OperationNotAllowed", message)


def check_family(state: State, resource: Resource, limit: int) -> None:
    """Refuse when the family of incremental snapshots has as many SAS as it may have."""
    family = resource["body"]["properties"].get("incrementalSnapshotFamilyId")
    if family is None:
        return
    count = 0
    for other in state["resources"].values():
        in_family = other["type"] == SNAPSHOTS and other["lab"].get("family") == family
        if in_family and active_grant(state, other["id"]):
            count += 1
    if count >= limit:
        message = (
            f"Cannot grant access to '{resource['name']}': at most {limit} incremental snapshots "
            "of the same family may have an active shared access signature at a time."
        )
        raise ArmError(409, "OperationNotAllowed", message)


def grant(
    state: State, base_url: str, resource: Resource, disk: str, snapshot: str, seconds: int
) -> tuple[str, bool]:
    """Grant or extend access to a frozen content; returns the URL and whether the grant is new."""
    current = active_grant(state, resource["id"])
    if current:
        kept = state["grants"][current["policy"]]
        kept["expires"] = max(kept["expires"], time.time() + seconds)
        return str(kept["url"]), False
    policy = str(uuid.uuid4())
    incremental = resource["lab"].get("family") is not None
    signature = base64.b64encode(hashlib.sha256(uuid.uuid4().bytes).digest()).decode()
    path = _blob_path(disk if incremental else resource["lab"].get("snapshot", disk))
    if incremental:
        stamp = resource["lab"]["timestamp"]
        query = f"snapshot={stamp}&sv=2018-11-09&sr=bs&si={policy}&sig={quote(signature, safe='')}"
    else:
        stamp = None
        query = f"sv=2018-03-28&sr=b&si={policy}&sig={quote(signature, safe='')}"
    url = f"{base_url}{path}?{query}"
    state["grants"][policy] = {
        "policy": policy,
        "resource": resource["id"],
        "disk": disk,
        "snapshot": snapshot,
        "timestamp": stamp,
        "path": path,
        "signature": signature,
        "expires": time.time() + seconds,
        "url": url,
    }
    return url, True


def revoke(state: State, resource_id: str) -> list[dict[str, Any]]:
    """End every grant of a resource, expired ones too; returns them."""
    ended = [g for g in state["grants"].values() if same_id(g["resource"], resource_id)]
    for grant_record in ended:
        del state["grants"][grant_record["policy"]]
    return ended


def check_signature(
    state: State, path: str, query: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """The grant that a URL stands for, or ``None`` and why not."""
    found = state["grants"].get(query.get("si", ""))
    if found is None:
        return None, "The stored access policy of the signature does not exist."
    if not hmac.compare_digest(found["signature"], query.get("sig", "")):
        return None, "Signature did not match."
    if found["path"] != path or found["timestamp"] != query.get("snapshot"):
        return None, "The signature was made for another resource."
    if found["expires"] <= time.time():
        return None, "Signature not valid in the specified time frame."
    return dict(found), ""


def _blob_path(base: str) -> str:
    digest = hashlib.sha256(base.encode()).hexdigest()
    return f"/md-{digest[:12]}/{digest[12:24]}/abcd"
