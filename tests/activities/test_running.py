"""How blocking work is run: heartbeats, cancellation that waits, tokens, errors with codes."""

import asyncio
import dataclasses
import threading

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.running import run_blocking
from models.errors import AzureThrottled, DiskMismatch
from platforms.base import Call


async def test_a_cancelled_activity_ends_only_after_its_thread_has() -> None:
    environment = ActivityEnvironment()
    begun, ended = threading.Event(), threading.Event()

    def work(call: Call) -> None:
        begun.set()
        call.stop.wait(10)
        ended.set()

    async def activity() -> None:
        await run_blocking(work)

    task = asyncio.create_task(environment.run(activity))
    await asyncio.to_thread(begun.wait, 5)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_an_error_carries_its_code_and_says_whether_to_retry() -> None:
    def refused(_call: Call) -> None:
        raise DiskMismatch("Disk os is 1 byte.", hint="Look at it.")

    async def activity() -> None:
        await run_blocking(refused)

    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(activity)
    assert raised.value.type == "FB-DISK-MISMATCH"
    assert raised.value.non_retryable
    assert "Look at it." in raised.value.message


async def test_a_throttled_call_waits_as_long_as_it_was_told() -> None:
    def throttled(_call: Call) -> None:
        error = AzureThrottled("slow down")
        error.retry_after_seconds = 42.0  # type: ignore[attr-defined]
        raise error

    async def activity() -> None:
        await run_blocking(throttled)

    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(activity)
    assert not raised.value.non_retryable
    assert raised.value.next_retry_delay is not None
    assert raised.value.next_retry_delay.total_seconds() == 42


async def test_an_operation_begun_by_a_killed_attempt_is_recalled_from_its_heartbeat() -> None:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        ActivityEnvironment.default_info(),
        heartbeat_details=[{"operations": {"deallocate": "token-1"}}],
        attempt=2,
    )
    beats: list[object] = []
    environment.on_heartbeat = lambda *details: beats.append(details[0])

    def work(call: Call) -> str | None:
        recalled = call.recall("deallocate")
        call.remember("deallocate", None)
        call.remember("start", "token-2")
        return recalled

    async def activity() -> str | None:
        return await run_blocking(work)

    assert await environment.run(activity) == "token-1"
    assert beats[-1] == {"operations": {"start": "token-2"}}


async def test_a_surprise_is_shown_to_a_person_after_some_attempts() -> None:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(ActivityEnvironment.default_info(), attempt=10)

    def bug(_call: Call) -> None:
        raise KeyError("x")

    async def activity() -> None:
        await run_blocking(bug)

    with pytest.raises(ApplicationError) as raised:
        await environment.run(activity)
    assert raised.value.type == "FB-INTERNAL"
    assert raised.value.non_retryable
