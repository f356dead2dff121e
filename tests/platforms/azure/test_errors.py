"""Azure's own code decides what a refusal means, not the status it comes with."""

from __future__ import annotations

import pytest
from azure.core.exceptions import HttpResponseError

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
from platforms.azure import AzurePlatform
from platforms.azure.errors import retry_after_seconds
from platforms.base import Call, CloudPlatform
from tests.platforms.azure.cloud import Cloud

CASES = [
    (409, "ScopeLocked", AzureLocked),
    (409, "OperationNotAllowed", AzureConflict),
    (409, "AllocationFailed", AzureCapacity),
    (409, "SkuNotAvailable", AzureCapacity),
    (409, "TooManyRequests", AzureThrottled),
    (409, "SomethingElse", AzureConflict),
    (409, "RetryableError", AzureUnavailable),
    (403, "AuthorizationFailed", AzureDenied),
    (403, "RequestDisallowedByPolicy", AzureDenied),
    (401, "ExpiredAuthenticationToken", AzureDenied),
    (404, "ResourceGroupNotFound", AzureNotFound),
    (404, "InvalidResourceType", AzureFailed),
    (404, "SubscriptionNotFound", AzureDenied),
    (429, "OperationNotAllowed", AzureThrottled),
    (429, "SubscriptionRequestsThrottled", AzureThrottled),
    (500, "InternalServerError", AzureUnavailable),
    (503, "SomethingElse", AzureUnavailable),
    (400, "InvalidParameter", AzureFailed),
]


@pytest.mark.parametrize(("status", "code", "kind"), CASES)
def test_a_refusal_is_known_by_its_code(
    cloud: Cloud, platform: AzurePlatform, status: int, code: str, kind: type[FailbackError]
) -> None:
    source = cloud.seed(f"refused-{status}-{code}".lower())
    with cloud.misbehaving(
        operation="virtualMachines.deallocate",
        action="fail",
        status=status,
        code=code,
        message="Words of Azure.",
    ):
        with pytest.raises(FailbackError) as refusal:
            platform.deallocate(source, Call())
    assert type(refusal.value) is kind
    assert code in refusal.value.message
    assert "Words of Azure" in refusal.value.message
    assert source.vm in refusal.value.message
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AllocationFailed", AzureCapacity),
        ("OperationPreempted", AzureConflict),
        ("InternalExecutionError", AzureUnavailable),
        ("OutOfWhatever", AzureFailed),
    ],
)
def test_an_operation_that_fails_with_status_200_is_known_by_its_code(
    cloud: Cloud, platform: AzurePlatform, code: str, kind: type[FailbackError]
) -> None:
    source = cloud.seed(f"failed-{code}".lower())
    with cloud.misbehaving(operation="virtualMachines.deallocate", action="lro_fail", code=code):
        with pytest.raises(FailbackError) as refusal:
            platform.deallocate(source, Call())
    assert type(refusal.value) is kind
    assert code in refusal.value.message


def test_a_connection_that_breaks_is_unavailable(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("cutoff")
    with cloud.misbehaving(operation="virtualMachines.deallocate", action="drop"):
        with pytest.raises(AzureUnavailable):
            platform.deallocate(source, Call())


def test_the_platform_is_what_the_activities_speak_to(platform: AzurePlatform) -> None:
    cloud_platform: CloudPlatform = platform
    assert cloud_platform


class _Response:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = HttpResponseError("throttled")
    error.response = _Response(headers)  # type: ignore[assignment]
    assert retry_after_seconds(error) == seconds
