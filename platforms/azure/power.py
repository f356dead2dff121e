"""Power of the Azure machine: ask the guest to shut down, power off, deallocate, start. The
instance view is believed, not the operation's outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from azure.core.polling import LROPoller
from azure.mgmt.compute import ComputeManagementClient

from models.errors import (
    AzureConflict,
    AzureNotFound,
    AzureUnavailable,
    FailbackError,
    GuestShutdownRefused,
)
from models.spec import AzureMachineRef
from platforms.azure.clients import Clients
from platforms.azure.errors import guarded, is_passing
from platforms.azure.operations import OperationTimedOut, Running, run_operation
from platforms.azure.waiting import wait_for
from platforms.base import Call

_log = logging.getLogger(__name__)

GONE = "gone"
RUNNING = "running"
STOPPED = "stopped"
DEALLOCATED = "deallocated"
_POWER = "powerstate/"


def power_of(statuses: Any) -> str:
    """The power state in an instance view's statuses; `unknown` if it names none."""
    for status in statuses or []:
        code = str(status.code or "")
        if code.lower().startswith(_POWER):
            return code[len(_POWER) :].lower()
    return "unknown"


class Power:
    """Power operations. All may be called again; each does nothing where nothing is to do."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._settings = clients.settings

    def state(self, source: AzureMachineRef) -> str:
        """The power state, or `gone`."""
        compute = self._compute(source)
        try:
            view = guarded(
                f"Reading the power state of {_title(source)}",
                lambda: compute.virtual_machines.instance_view(source.resource_group, source.vm),
            )
        except AzureNotFound:
            return GONE
        return power_of(view.statuses)

    def shut_down_guest(self, source: AzureMachineRef, timeout_seconds: float, call: Call) -> None:
        """Ask the guest, and give it the time.

        Raises:
            GuestShutdownRefused: It still runs after that, or Azure says that it would not.
        """
        if self._is(source, STOPPED, DEALLOCATED):
            call.remember("shut-down-guest", None)
            return
        doing = f"Shutting down the guest of {_title(source)}"
        begin = self._begin(source, self._compute(source).virtual_machines.begin_power_off)
        running: Running[None] = Running(
            "shut-down-guest", doing, partial(begin, skip_shutdown=False), call, self._settings
        )
        reason = self._reason_of_refusal(running, timeout_seconds)
        if self._reaches(source, call, 0.0 if reason else self._settings.confirm_seconds, STOPPED):
            return
        raise GuestShutdownRefused(
            f"The guest of {_title(source)} did not shut down: "
            f"{reason or 'Azure is done, but the instance view says otherwise'}.",
            hint="It goes on running. Shut it down from inside, or let the run power it off.",
        )

    def power_off(self, source: AzureMachineRef, call: Call) -> None:
        """Power off at once, as pulling the plug does."""
        begin = self._begin(source, self._compute(source).virtual_machines.begin_power_off)
        self._bring_to(
            source, (STOPPED, DEALLOCATED), "power-off", partial(begin, skip_shutdown=True), call
        )

    def deallocate(self, source: AzureMachineRef, call: Call) -> None:
        """Give the machine's host back, and see that it is so."""
        begin = self._begin(source, self._compute(source).virtual_machines.begin_deallocate)
        self._bring_to(source, (DEALLOCATED,), "deallocate", begin, call)

    def start(self, source: AzureMachineRef, call: Call) -> None:
        """Start the machine, and see that it runs. Asked even of one that seems to run: a power-off
        that nobody waits for any more may be under way, and only a later order ends it.

        Raises:
            AzureCapacity: Azure has no room for it now.
            AzureUnavailable: Another operation on the machine is in the way; it passes.
        """
        begin = self._begin(source, self._compute(source).virtual_machines.begin_start)
        try:
            self._bring_to(source, (RUNNING,), "start", begin, call, always=True)
        except AzureConflict as conflict:
            if not is_passing(conflict):
                raise
            raise AzureUnavailable(
                conflict.message, hint="It is tried again when that operation has ended."
            ) from conflict

    def _bring_to(
        self,
        source: AzureMachineRef,
        wanted: tuple[str, ...],
        name: str,
        begin: Callable[..., LROPoller[None]],
        call: Call,
        *,
        always: bool = False,
    ) -> None:
        if self._is(source, *wanted) and not always:
            call.remember(name, None)
            return
        doing = f"Bringing {_title(source)} to {wanted[0]!r} ({name})"
        resumed = call.recall(name) is not None
        run_operation(name, doing, begin, call, self._settings)
        # A kept token may be that of an operation whose effect was undone since.
        if resumed and not self._is(source, *wanted):
            run_operation(name, doing, begin, call, self._settings)
        if not self._reaches(source, call, self._settings.confirm_seconds, *wanted):
            raise AzureUnavailable(
                f"{doing}: Azure says it is done, but after {self._settings.confirm_seconds:.0f} s "
                f"the instance view still says {self.state(source)!r}.",
                hint="It is tried again; look at the virtual machine in the portal if it lasts.",
            )

    def _reason_of_refusal(self, running: Running[None], timeout_seconds: float) -> str:
        try:
            running.finish(timeout_seconds)
        except OperationTimedOut:
            return f"it was given {timeout_seconds:.0f} s"
        except FailbackError as failure:
            # Only what Azure says about the outcome is about the guest.
            if not running.ended:
                raise
            return failure.message.rstrip(".")
        return ""

    def _is(self, source: AzureMachineRef, *wanted: str) -> bool:
        state = self.state(source)
        if state == GONE:
            raise AzureNotFound(
                f"{_title(source)} does not exist.", hint="Was it deleted or moved meanwhile?"
            )
        return state in wanted

    def _reaches(self, source: AzureMachineRef, call: Call, seconds: float, *wanted: str) -> bool:
        return wait_for(
            lambda: self._is(source, *wanted),
            call,
            seconds=seconds,
            interval_seconds=self._settings.polling_interval_seconds,
            waiting_for=f"{_title(source)} to be {' or '.join(wanted)}",
        )

    def _compute(self, source: AzureMachineRef) -> ComputeManagementClient:
        return self._clients.compute(source.subscription_id)

    @staticmethod
    def _begin(
        source: AzureMachineRef, method: Callable[..., LROPoller[None]]
    ) -> Callable[..., LROPoller[None]]:
        return partial(method, source.resource_group, source.vm)


def _title(source: AzureMachineRef) -> str:
    return f"virtual machine {source.vm!r} in {source.resource_group!r}"
