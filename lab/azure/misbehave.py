"""Carries out what a chaos rule says, in the ways both emulated services share."""

from __future__ import annotations

import time

from lab.azure.errors import ArmError, StorageError, throttled
from lab.azure.http import DropConnection
from lab.chaos import Action, Chaos

HANG_LOOK_SECONDS = 0.1  # how often a hanging request looks whether its rule has been removed


def before_arm(action: Action | None, chaos: Chaos) -> None:
    """What happens to a Resource Manager request before it is worked on."""
    _wait_or_drop(action, chaos)
    if action is None:
        return
    if action.kind == "throttle":
        message = action.message or "The server rejected the request because of too many requests."
        raise throttled(action.retry_after, "HighCostGet", message)
    if action.kind == "fail":
        code = action.code or "InternalServerError"
        message = action.message or "Encountered internal server error."
        raise ArmError(action.status or 500, code, message)


def before_storage(action: Action | None, chaos: Chaos) -> None:
    """What happens to a blob request before it is worked on. Storage throttles with a 503."""
    _wait_or_drop(action, chaos)
    if action is None:
        return
    if action.kind == "throttle":
        status = action.status or 503
        headers = {"Retry-After": f"{action.retry_after:g}"}
        raise StorageError(status, "ServerBusy", "The server is busy.", headers)
    if action.kind == "fail":
        code = action.code or "InternalError"
        message = action.message or "The server encountered an internal error."
        raise StorageError(action.status or 500, code, message)


def after(action: Action | None) -> None:
    """What happens when the work is done and the answer is ready."""
    if action is not None and action.kind == "drop" and action.when == "after":
        raise DropConnection


def _wait_or_drop(action: Action | None, chaos: Chaos) -> None:
    if action is None:
        return
    if action.kind == "delay":
        time.sleep(action.seconds)
    if action.kind == "drop" and action.when != "after":
        raise DropConnection
    if action.kind == "hang":
        deadline = time.monotonic() + action.seconds
        while time.monotonic() < deadline and chaos.in_force(action.rule_id):
            time.sleep(HANG_LOOK_SECONDS)
        raise DropConnection
