"""What the identity must be allowed to do, action by action, and whether it is. The role definition
in the documentation lists the same actions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# In the machine's resource group (and in its disks' and interfaces', where they differ).
MACHINE_ACTIONS = (
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/powerOff/action",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/beginGetAccess/action",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/join/action",
)
# In the resource group of the run's snapshots.
SNAPSHOT_ACTIONS = (
    "Microsoft.Compute/snapshots/read",
    "Microsoft.Compute/snapshots/write",
    "Microsoft.Compute/snapshots/delete",
    "Microsoft.Compute/snapshots/beginGetAccess/action",
    "Microsoft.Compute/snapshots/endGetAccess/action",
)
# Nice to have: without them preflight warns that it could not look.
OPTIONAL_ACTIONS = (
    "Microsoft.Authorization/locks/read",
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Compute/skus/read",
    "Microsoft.Compute/locations/operations/read",
    "Microsoft.Compute/locations/diskOperations/read",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
)


def missing_actions(permissions: list[dict[str, Any]], wanted: Iterable[str]) -> list[str]:
    """The actions that none of the permissions allows, in the order they were asked for.

    Args:
        permissions: Items of Azure's permissions list, with `actions` and `notActions`. What one
            item takes away by `notActions`, another may still give.
    """
    return [action for action in wanted if not any(_allows(p, action) for p in permissions)]


def _allows(permission: dict[str, Any], action: str) -> bool:
    return _matches(permission.get("actions"), action) and not _matches(
        permission.get("notActions"), action
    )


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE)
        for pattern in patterns or []
    )
