"""What Azure says no with, as errors of `models.errors`.

The code in the answer decides, the status only where the code is unknown: Azure answers 409 for
locks, attached disks and exhausted quotas alike, 429 with the code of a conflict, and a failed
long-running operation with status 200.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from typing import TypeVar

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from models.errors import (
    AzureCapacity,
    AzureConflict,
    AzureDenied,
    AzureFailed,
    AzureLocked,
    AzureNotFound,
    AzureThrottled,
    AzureUnavailable,
    FailbackError,
)
from platforms.azure.redaction import redacted

Result = TypeVar("Result")

_BY_CODE: dict[str, type[FailbackError]] = {
    code.lower(): kind
    for kind, codes in {
        AzureDenied: (
            "AuthorizationFailed LinkedAuthorizationFailed RequestDisallowedByPolicy "
            "ExpiredAuthenticationToken InvalidAuthenticationToken AuthenticationFailed "
            "InvalidAuthenticationTokenTenant AuthorizationPermissionMismatch "
            "DisallowedByPolicy InsufficientAccountPermissions SubscriptionNotFound"
        ),
        AzureNotFound: (
            "ResourceNotFound ResourceGroupNotFound ParentResourceNotFound NotFound "
            "BlobNotFound ContainerNotFound"
        ),
        AzureLocked: "ScopeLocked",
        AzureThrottled: (
            "TooManyRequests SubscriptionRequestsThrottled ResourceRequestsThrottled "
            "RequestRateTooLarge RateLimitExceeded ServerBusy"
        ),
        AzureCapacity: (
            "AllocationFailed ZonalAllocationFailed SkuNotAvailable "
            "OverconstrainedAllocationRequest OverconstrainedZonalAllocationRequest"
        ),
        AzureConflict: (
            "OperationNotAllowed Conflict OperationPreempted ConflictingUserInput "
            "AttachDiskWhileBeingDetached ConflictingConcurrentWriteNotAllowed "
            "PropertyChangeNotAllowed ResourceInUse"
        ),
        AzureUnavailable: (
            "InternalServerError InternalExecutionError InternalOperationError InternalError "
            "ServiceUnavailable GatewayTimeout OperationTimedOut RequestTimeout RetryableError "
            "VMStartTimedOut NetworkingInternalOperationError AnotherOperationInProgress "
            "ServerTimeout"
        ),
    }.items()
    for code in codes.split()
}
# Conflicts with another operation on the same resource, which ends by itself.
_PASSING = ("conflict", "operationpreempted", "conflictingconcurrentwritenotallowed")
_PASSING_WORDS = ("in progress", "concurrent", "another operation")
_THROTTLING = ("toomanyrequests", "throttled", "ratelimit")

_HINTS: dict[type[FailbackError], str] = {
    AzureDenied: "Give the identity the permissions of the role in deploy/azure-role.json, "
    "or ask who owns the policy.",
    AzureLocked: "Remove the management lock, or ask who set it.",
    AzureThrottled: "It is tried again after the time that Azure asks for.",
    AzureUnavailable: "It is tried again; look at Azure's service health if it lasts.",
    AzureCapacity: "Try again later, or resize the virtual machine to a size the zone has.",
    AzureConflict: "Look at the resource's state in the portal, then retry.",
    AzureNotFound: "Look whether it was renamed, moved or deleted.",
}


def guarded(doing: str, operation: Callable[[], Result]) -> Result:
    """Call `operation`; what Azure refuses is raised as an error of ours, without the original in
    its chain, because HTTP libraries quote secret URLs in their texts.

    Args:
        doing: What is attempted and on what, for the message: `Reading virtual machine "web"`.
    """
    try:
        return operation()
    except AzureError as error:
        failure = classify(error, doing)
    raise failure


def classify(error: AzureError, doing: str) -> FailbackError:
    """The error of ours that an error of the SDK means. A throttled one has the attribute
    `retry_after_seconds`, `None` where Azure named no time."""
    kind = _kind(error)
    failure = kind(f"{doing}: {_words(error)}", hint=_HINTS.get(kind, ""))
    if kind is AzureThrottled:
        vars(failure)["retry_after_seconds"] = retry_after_seconds(error)
    if kind is AzureConflict:
        vars(failure)["passing"] = _is_passing(error)
    return failure


def is_passing(conflict: AzureConflict) -> bool:
    """Whether a conflict is with another operation, after whose end the call may be made again."""
    return bool(vars(conflict).get("passing"))


def throttled(message: str, seconds: float | None) -> AzureThrottled:
    """A throttling error that names how long to wait."""
    failure = AzureThrottled(message, hint=_HINTS[AzureThrottled])
    vars(failure)["retry_after_seconds"] = seconds
    return failure


def service_code(error: AzureError) -> str:
    """Azure's own error code in an SDK error; empty if it has none."""
    code = getattr(error, "error_code", None) or getattr(
        getattr(error, "error", None), "code", None
    )
    response = getattr(error, "response", None)
    if not code and response is not None:
        code = response.headers.get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def status_of(error: AzureError) -> int | None:
    """The HTTP status in an SDK error; `None` where no answer came."""
    return error.status_code if isinstance(error, HttpResponseError) else None


def retry_after_seconds(error: AzureError) -> float | None:
    """How long the answer asks to wait, in seconds."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    for header in ("retry-after-ms", "x-ms-retry-after-ms"):
        if value := response.headers.get(header):
            return _number(value, 1000.0)
    value = response.headers.get("Retry-After")
    if not value:
        return None
    seconds = _number(value, 1.0)
    if seconds is None and (moment := email.utils.parsedate_tz(value)):
        return max(0.0, email.utils.mktime_tz(moment) - time.time())
    return seconds


def _number(text: str, divisor: float) -> float | None:
    try:
        return max(0.0, float(text) / divisor)
    except ValueError:
        return None


def _kind(error: AzureError) -> type[FailbackError]:
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return AzureUnavailable
    # No token could be had, and nobody said no: the sign-in endpoint is away.
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        return AzureUnavailable
    status = status_of(error)
    codes = [service_code(error).lower(), *_detail_codes(error)]
    # A throttled compute call has the code of a conflict and says what it is in its details.
    if status == 429 or any(word in code for code in codes for word in _THROTTLING):
        return AzureThrottled
    if codes[0] in _BY_CODE:
        return _BY_CODE[codes[0]]
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return AzureDenied
    if status == 404:
        return _not_found(codes[0])
    if status == 409:
        return AzureConflict
    if status is not None and (status >= 500 or status == 408):
        return AzureUnavailable
    return AzureFailed


def _is_passing(error: AzureError) -> bool:
    text = _words(error).lower()
    return service_code(error).lower() in _PASSING or any(word in text for word in _PASSING_WORDS)


def _not_found(code: str) -> type[FailbackError]:
    """Only Azure's word that a thing is not there counts: a proxy's page with status 404 must never
    pass for a deleted machine."""
    if not code:
        return AzureUnavailable
    return AzureNotFound if "notfound" in code else AzureFailed


def _detail_codes(error: AzureError) -> list[str]:
    details = getattr(getattr(error, "error", None), "details", None) or []
    return [str(getattr(detail, "code", "") or "").lower() for detail in details]


def _words(error: AzureError) -> str:
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return f"no answer ({_first_line(str(error))})."
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        return f"no sign-in ({_first_line(str(error))})."
    code = service_code(error)
    text = getattr(getattr(error, "error", None), "message", None) or str(error)
    said = f"{code}: {_first_line(str(text))}" if code else _first_line(str(text))
    response = getattr(error, "response", None)
    request_id = response.headers.get("x-ms-request-id") if response is not None else None
    return f"Azure said {said}" + (f" (request {request_id})." if request_id else "")


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "nothing more")
    return redacted(line)[:500]
