"""Names that everything in this package shares: tags on what a run makes, and resource ids, which
Azure compares without regard to case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

RUN_TAG = "failback-run"
MACHINE_TAG = "failback-machine"


class ResourceId(NamedTuple):
    """The parts of a resource id that calls need."""

    subscription_id: str
    resource_group: str
    name: str


def parse_resource_id(resource_id: str) -> ResourceId:
    """Take a resource id apart.

    Raises:
        ValueError: It is not the id of a resource in a resource group.
    """
    parts = resource_id.strip("/").split("/")
    lowered = [part.lower() for part in parts]
    if len(parts) < 8 or lowered[0] != "subscriptions" or lowered[2] != "resourcegroups":
        raise ValueError(f"{resource_id!r} is not the id of a resource in a resource group")
    return ResourceId(parts[1], parts[3], parts[-1])


def same_resource(left: str | None, right: str | None) -> bool:
    """Whether two ids mean the same resource."""
    return (left or "").strip("/").lower() == (right or "").strip("/").lower()


def run_of(tags: Mapping[str, str] | None) -> str:
    """The run that a resource's tags name; empty if none. Tag names have no case in Azure."""
    return _tag(tags, RUN_TAG)


def machine_of(tags: Mapping[str, str] | None) -> str:
    """The machine that a resource's tags name; empty if none."""
    return _tag(tags, MACHINE_TAG)


def _tag(tags: Mapping[str, str] | None, name: str) -> str:
    return next((value for key, value in (tags or {}).items() if key.lower() == name), "")
