"""Every error the product can tell a person, with a stable code.

A class has a code (`FB-…`), an exit status for the command line and says whether the same call
may be tried again by itself. The code is also the `type` of Temporal's `ApplicationError` and the
anchor in `docs/errors.md`. A message says what happened, to what, and what to do next; secrets
never enter one.
"""

from __future__ import annotations

from typing import ClassVar


class FailbackError(Exception):
    """Base of the tree.

    Args:
        message: What happened, and to what.
        hint: What the reader should do next; shown after the message.
    """

    code: ClassVar[str] = "FB-ERROR"
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


# --- what an operator typed -------------------------------------------------------------------


class InvalidSpec(FailbackError):
    """The spec file does not describe a failback."""

    code = "FB-SPEC"
    exit_status = 2


class InvalidConfiguration(FailbackError):
    """The configuration of a worker or of the command line is wrong or incomplete."""

    code = "FB-CONFIG"
    exit_status = 2


class Rejected(FailbackError):
    """A message is not accepted in the run's present phase."""

    code = "FB-REJECTED"
    exit_status = 3


class NotFound(FailbackError):
    """No run, machine or object of that name."""

    code = "FB-NOT-FOUND"
    exit_status = 4


class AlreadyRunning(FailbackError):
    """A failback of this machine is running already."""

    code = "FB-ALREADY-RUNNING"
    exit_status = 3


class PreflightFailed(FailbackError):
    """At least one preflight check says no; nothing was touched."""

    code = "FB-PREFLIGHT"
    exit_status = 5


class Unreachable(FailbackError):
    """Temporal, Azure, the hypervisor host or the mover does not answer."""

    code = "FB-UNREACHABLE"
    exit_status = 6
    retryable = True


class LeftoversFound(FailbackError):
    """`doctor` found what a run left behind."""

    code = "FB-LEFTOVERS"
    exit_status = 7


class ServerStateExists(FailbackError):
    """A backup or restore would overwrite the embedded server's state."""

    code = "FB-SERVER-STATE"
    exit_status = 2


# --- the block engine -------------------------------------------------------------------------


class DiskBusy(FailbackError):
    """Another writer holds the disk and did not let go in time."""

    code = "FB-DISK-BUSY"
    retryable = True


class DiskMissing(FailbackError):
    """The device did not appear on the mover."""

    code = "FB-DISK-MISSING"
    retryable = True


class DiskMismatch(FailbackError):
    """The device has another size or identity than the one the hypervisor attached."""

    code = "FB-DISK-MISMATCH"


class DiskInUse(FailbackError):
    """The device is mounted or otherwise in use on the mover."""

    code = "FB-DISK-IN-USE"


class JournalFull(FailbackError):
    """The disk that holds journal and ledger is full; nothing was lost."""

    code = "FB-JOURNAL-FULL"


class Superseded(FailbackError):
    """A newer attempt took over this disk; this one stopped before its next write."""

    code = "FB-SUPERSEDED"
    retryable = True


class SourceChanged(FailbackError):
    """The source gave fewer bytes than asked, or changed its size."""

    code = "FB-SOURCE-CHANGED"


class SourceDenied(FailbackError):
    """The source refuses the grant even after it was renewed."""

    code = "FB-SOURCE-DENIED"
    retryable = True


class SourceUnavailable(FailbackError):
    """The source did not answer within its retries."""

    code = "FB-SOURCE-UNAVAILABLE"
    retryable = True


class VerificationFailed(FailbackError):
    """What was read back from the device is not what was written."""

    code = "FB-VERIFY"


class BaseUntrusted(FailbackError):
    """A range said to be unchanged has changed: the delta's base cannot be trusted."""

    code = "FB-BASE-UNTRUSTED"


class BaseUnavailable(FailbackError):
    """No delta can be had: the base is gone, of another generation, or the disk was resized."""

    code = "FB-BASE-UNAVAILABLE"


class StateCorrupt(FailbackError):
    """Journal or ledger cannot be read; nothing is written until a person has looked."""

    code = "FB-STATE-CORRUPT"


class DeviceFailed(FailbackError):
    """The device answered a read or write with an error."""

    code = "FB-DEVICE"
    retryable = True


class Stopped(FailbackError):
    """The copy was told to stop and did so at an extent's end. Not an error to a person."""

    code = "FB-STOPPED"
    retryable = True


# --- Azure ------------------------------------------------------------------------------------


class AzureDenied(FailbackError):
    """The identity lacks a permission, or a policy forbids the call."""

    code = "FB-AZURE-DENIED"


class AzureNotFound(FailbackError):
    """The virtual machine, disk or snapshot does not exist."""

    code = "FB-AZURE-NOT-FOUND"


class AzureLocked(FailbackError):
    """A management lock forbids the call."""

    code = "FB-AZURE-LOCKED"


class AzureConflict(FailbackError):
    """The resource's present state forbids the call."""

    code = "FB-AZURE-CONFLICT"


class AzureThrottled(FailbackError):
    """Azure asks to slow down, beyond what one call may wait."""

    code = "FB-AZURE-THROTTLED"
    retryable = True


class AzureUnavailable(FailbackError):
    """Azure does not answer, or answers with a server error."""

    code = "FB-AZURE-UNAVAILABLE"
    retryable = True


class AzureCapacity(FailbackError):
    """Azure has no capacity to start the virtual machine now. Not tried again by itself: whether to
    wait, or to make room, is a person's decision, and they should know at once."""

    code = "FB-AZURE-CAPACITY"


class GuestShutdownRefused(FailbackError):
    """The guest did not shut down when asked."""

    code = "FB-GUEST-SHUTDOWN"


class AzureFailed(FailbackError):
    """Azure refused for a reason that has no class of its own; its code is in the message."""

    code = "FB-AZURE"


# --- the hypervisor ---------------------------------------------------------------------------


class HypervisorUnreachable(FailbackError):
    """The host does not answer on its management port."""

    code = "FB-HOST-UNREACHABLE"
    retryable = True


class HypervisorDenied(FailbackError):
    """The host refuses the account."""

    code = "FB-HOST-DENIED"


class MachineNotFound(FailbackError):
    """The on-premises machine does not exist."""

    code = "FB-MACHINE-NOT-FOUND"


class MachineState(FailbackError):
    """The on-premises machine is in a state that forbids the call."""

    code = "FB-MACHINE-STATE"


class NoDiskSlot(FailbackError):
    """The mover has no free disk slot, or the wanted one is taken by a disk of another."""

    code = "FB-DISK-SLOT"


class HypervisorFailed(FailbackError):
    """A command on the host failed; its own words are in the message."""

    code = "FB-HOST"
    retryable = True


# --- after boot -------------------------------------------------------------------------------


class MachineUnhealthy(FailbackError):
    """The on-premises machine runs but its health checks do not hold."""

    code = "FB-UNHEALTHY"


def all_error_classes() -> tuple[type[FailbackError], ...]:
    """Every class of the tree, the base included, in the order of definition."""
    found: list[type[FailbackError]] = [FailbackError]
    for parent in found:
        found.extend(parent.__subclasses__())
    return tuple(found)


def error_class(code: str) -> type[FailbackError]:
    """The class with this stable code; `FailbackError` itself for an unknown one."""
    return next((c for c in all_error_classes() if c.code == code), FailbackError)
