"""How a workflow calls an activity: timeouts, endless retries, a summary for the Web UI, and
*parking*: what cannot be retried by itself waits for a person's `retry` or `abort`, for as long as
it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import (
    TimeoutError as ActivityTimeoutError,
)

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel

    from models.calls import CONTROL_QUEUE
    from models.status import Blocked, RunState

Result = TypeVar("Result")

# Server-side detection of a dead worker; workers heartbeat every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=10)
# A control-plane call polls long-running operations; an hour is beyond any of them.
CONTROL_TIMEOUT = timedelta(hours=1)
# One attempt at a copy is bounded by nothing but the disk; a month is "never" with an end.
COPY_TIMEOUT = timedelta(days=30)
# How long nobody may pick a step up before the run says that it waits for that worker.
PICK_UP_TIMEOUT = timedelta(minutes=5)
# Each further wait is longer: a worker that is away for weeks must not fill the history.
LONGEST_PICK_UP_TIMEOUT = timedelta(days=2)
RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)
# Error texts go into the history; a megabyte of them would break it.
_ERROR_TEXT_LIMIT = 2000


class Steps:
    """Calls activities on behalf of one run.

    Args:
        state: The run's state; `blocked` and `waiting` are kept here.
        ended_early: Says whether the work these steps belong to is to stop: an activity that ends
            with success although it was cancelled must not let the run go on.
    """

    def __init__(self, state: RunState, ended_early: Callable[[], bool]) -> None:
        self.state = state
        self.choices: tuple[str, ...] = ("retry", "abort")
        self.retry_policy = RETRY
        self._ended_early = ended_early
        self._retries = 0

    def retry(self) -> None:
        """A person said `retry`: every parked step tries again."""
        self._retries += 1
        self.state.blocked = None

    async def call(
        self,
        activity: str,
        argument: BaseModel,
        result_type: type[Result],
        *,
        summary: str,
        queue: str = CONTROL_QUEUE,
        timeout: timedelta = CONTROL_TIMEOUT,
        activity_id: str | None = None,
    ) -> Result:
        """One activity, tried until it succeeds or cannot be retried by itself.

        Raises:
            ActivityError: It cannot be retried by itself.
            asyncio.CancelledError: The run is being undone.
        """
        pick_up = PICK_UP_TIMEOUT
        while True:
            try:
                result: Result = await workflow.execute_activity(
                    activity,
                    argument,
                    result_type=result_type,
                    task_queue=queue,
                    activity_id=activity_id,
                    start_to_close_timeout=timeout,
                    schedule_to_start_timeout=pick_up,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    retry_policy=self.retry_policy,
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                    summary=summary[:200],
                )
            except ActivityError as error:
                if self._ended_early():
                    # However it ended: the one cancel is spent, and parking would wait for ever.
                    raise asyncio.CancelledError from error
                if not _nobody_picked_up(error) or self.retry_policy.maximum_attempts:
                    raise
                self.state.waiting = f"a worker on {queue}, to {summary}"
                pick_up = min(pick_up * 4, LONGEST_PICK_UP_TIMEOUT)
                continue
            self.state.waiting = ""
            if self._ended_early():
                raise asyncio.CancelledError
            return result

    async def do(
        self,
        activity: str,
        argument: BaseModel,
        result_type: type[Result],
        *,
        summary: str,
        queue: str = CONTROL_QUEUE,
        timeout: timedelta = CONTROL_TIMEOUT,
        activity_id: str | None = None,
        leave_to_caller: tuple[str, ...] = (),
    ) -> Result:
        """As `call`, but parks instead of failing; errors with a code in `leave_to_caller` are
        raised, because the caller knows what to do about them."""
        while True:
            try:
                return await self.call(
                    activity,
                    argument,
                    result_type,
                    summary=summary,
                    queue=queue,
                    timeout=timeout,
                    activity_id=activity_id,
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                code, message = describe(error)
                if code in leave_to_caller:
                    raise
                await self.park(code, message, step=summary)

    async def park(
        self,
        code: str,
        message: str,
        *,
        step: str,
        choices: tuple[str, ...] = (),
        at_most: timedelta | None = None,
    ) -> None:
        """Wait for a person's `retry`, or until `at_most` is over; `abort` ends the wait by
        cancelling it."""
        if self._ended_early():
            raise asyncio.CancelledError
        seen = self._retries
        self.state.blocked = Blocked(
            code=code,
            message=message,
            step=step,
            since=workflow.now(),
            choices=list(choices or self.choices),
        )
        try:
            await workflow.wait_condition(
                lambda: self._retries > seen, timeout=at_most, timeout_summary=f"{code} at {step}"
            )
        except TimeoutError:
            self.state.blocked = None


async def together(*work: Awaitable[Result]) -> list[Result]:
    """Run several steps side by side and return when *all* of them have ended, also when one fails
    or all are cancelled: `asyncio.gather` returns at the first error while the others still
    write."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    results: list[Result] = []
    for one in ended:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


async def settled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until its activities have really ended."""
    task.cancel()
    try:
        await task
    except BaseException as error:
        if not is_cancelled_exception(error):
            raise


def describe(error: ActivityError) -> tuple[str, str]:
    """Stable code and message of what made an activity fail."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type or "FB-ERROR", cause.message[:_ERROR_TEXT_LIMIT]
    if isinstance(cause, ActivityTimeoutError):
        return "FB-TIMEOUT", f"{error.activity_type} did not end in its time ({cause.message})."
    return "FB-ERROR", str(cause or error)[:_ERROR_TEXT_LIMIT]


def _nobody_picked_up(error: ActivityError) -> bool:
    cause = error.cause
    return isinstance(cause, ActivityTimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
