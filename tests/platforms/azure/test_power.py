"""Power: the guest is asked, the instance view decides, and nothing is done twice."""

from __future__ import annotations

import pytest

from models.errors import (
    AzureCapacity,
    AzureConflict,
    AzureLocked,
    AzureNotFound,
    AzureThrottled,
    AzureUnavailable,
    GuestShutdownRefused,
)
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform
from platforms.azure.waiting import wait_for
from platforms.base import Call
from tests.platforms.azure.cloud import GROUP, SUBSCRIPTION, Cloud, Memory


def test_a_machine_goes_down_and_up_again(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("updown")
    memory = Memory()
    assert platform.power_state(source) == "running"

    platform.shut_down_guest(source, 30, memory.call())
    assert platform.power_state(source) == "stopped"
    platform.deallocate(source, memory.call())
    assert platform.power_state(source) == "deallocated"
    platform.start(source, memory.call())
    assert platform.power_state(source) == "running"
    platform.power_off(source, memory.call())
    assert platform.power_state(source) == "stopped"
    assert memory.ever == ["shut-down-guest", "deallocate", "start", "power-off"]
    assert memory.tokens == {}


def test_what_is_done_already_is_not_done_again(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("already")
    platform.start(source, Call())
    platform.deallocate(source, Call())
    posts = cloud.count("virtualMachines.powerOff"), cloud.count("virtualMachines.deallocate")

    platform.shut_down_guest(source, 30, Call())
    platform.power_off(source, Call())
    platform.deallocate(source, Call())

    assert [count() for count in posts] == [0, 0]


def test_a_start_ends_a_power_off_that_nobody_waits_for_any_more(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("inflight")
    memory = Memory()
    with cloud.misbehaving(operation="virtualMachines.powerOff", action="refuse_shutdown"):
        with pytest.raises(GuestShutdownRefused, match="given 0 s"):
            platform.shut_down_guest(source, 0.3, memory.call())
    platform.start(source, memory.call())
    assert platform.power_state(source) == "running"
    # The guest's time at Azure is over by then.
    assert not wait_for(
        lambda: platform.power_state(source) != "running",
        Call(),
        seconds=2.5,
        interval_seconds=0.2,
        waiting_for="the power-off",
    )


def test_a_machine_that_seems_to_run_is_started_all_the_same(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("seems")
    posts = cloud.count("virtualMachines.start")
    platform.start(source, Call())
    assert posts() == 1
    assert platform.power_state(source) == "running"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Conflict", "The request conflicts with a concurrent request."),
        ("OperationPreempted", "A more recent operation took over."),
        ("OperationNotAllowed", "Another operation is in progress."),
    ],
)
def test_a_start_waits_for_another_operation_on_the_machine(
    cloud: Cloud, platform: AzurePlatform, code: str, message: str
) -> None:
    source = cloud.seed(f"busy-{code.lower()}", running=False)
    with cloud.misbehaving(
        operation="virtualMachines.start", action="fail", status=409, code=code, message=message
    ):
        with pytest.raises(AzureUnavailable, match=code) as failure:
            platform.start(source, Call())
    assert failure.value.retryable
    platform.start(source, Call())
    assert platform.power_state(source) == "running"


def test_a_disk_that_is_exported_keeps_the_machine_from_starting(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("held", running=False)
    cloud.grant_disk("held-os")
    with pytest.raises(AzureConflict, match="shared access signature"):
        platform.start(source, Call())


def test_a_guest_that_takes_longer_than_its_time_has_refused(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("slow")
    memory = Memory()
    with cloud.misbehaving(operation="virtualMachines.powerOff", action="refuse_shutdown"):
        with pytest.raises(GuestShutdownRefused, match="given 0 s"):
            platform.shut_down_guest(source, 0.3, memory.call())
    assert memory.tokens == {}
    platform.power_off(source, memory.call())
    assert platform.power_state(source) == "stopped"


def test_a_guest_that_azure_gives_up_on_has_refused_and_runs(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("stubborn")
    with cloud.misbehaving(operation="virtualMachines.powerOff", action="refuse_shutdown"):
        with pytest.raises(GuestShutdownRefused, match="VMGuestShutdownTimedOut"):
            platform.shut_down_guest(source, 30, Call())
    assert platform.power_state(source) == "running"


def test_throttling_is_not_the_guests_refusal(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("busyhost")
    with cloud.misbehaving(operation="virtualMachines.powerOff", action="throttle", retry_after=3):
        with pytest.raises(AzureThrottled) as refusal:
            platform.shut_down_guest(source, 30, Call())
    assert vars(refusal.value)["retry_after_seconds"] == 3.0


@pytest.mark.parametrize(
    "code",
    [
        "AllocationFailed",
        "ZonalAllocationFailed",
        "SkuNotAvailable",
        "OverconstrainedAllocationRequest",
    ],
)
def test_no_room_to_start_is_a_matter_of_capacity(
    cloud: Cloud, platform: AzurePlatform, code: str
) -> None:
    source = cloud.seed(f"full-{code.lower()}", running=False)
    memory = Memory()
    with cloud.misbehaving(operation="virtualMachines.start", action="lro_fail", code=code):
        with pytest.raises(AzureCapacity, match=code):
            platform.start(source, memory.call())
    assert memory.tokens == {}
    platform.start(source, memory.call())
    assert platform.power_state(source) == "running"


def test_a_lock_is_named_as_one(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("locked")
    with cloud.misbehaving(
        operation="virtualMachines.deallocate", action="fail", status=409, code="ScopeLocked"
    ):
        with pytest.raises(AzureLocked):
            platform.deallocate(source, Call())


def test_a_machine_that_is_gone(cloud: Cloud, platform: AzurePlatform) -> None:
    cloud.seed("present")
    source = AzureMachineRef(subscription_id=SUBSCRIPTION, resource_group=GROUP, vm="absent")
    assert platform.power_state(source) == "gone"
    with pytest.raises(AzureNotFound):
        platform.start(source, Call())
