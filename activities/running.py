"""How an activity runs blocking work: in a thread, with a heartbeat every second, stopped at a safe
point when it is cancelled, and with errors that carry their stable code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.errors import FailbackError, HypervisorFailed
from platforms.base import Call

Result = TypeVar("Result")

HEARTBEAT_SECONDS = 1.0
# An error without a code is a bug or a surprise: tried some times, then shown to a person.
_ATTEMPTS_FOR_SURPRISES = 10
# A host's own error may pass, or be full memory or a full disk: shown to a person after as many.
_SHOWN_SOON = (HypervisorFailed.code,)
# Threads mostly wait for the network or a disk; the worker's slots bound how many there are.
_THREADS = ThreadPoolExecutor(max_workers=128, thread_name_prefix="activity")


async def run_blocking(
    work: Callable[[Call], Result], progress: Callable[[], dict[str, Any]] | None = None
) -> Result:
    """Run `work` in a thread until it ends; a cancelled activity ends only after its thread has.

    Args:
        work: Gets a `Call`: its `stop` is set on cancel and worker shutdown, and continuation
            tokens it remembers travel in the heartbeat, so that another attempt finds them.
        progress: What to show in the heartbeat instead; read once a second.

    Raises:
        ApplicationError: A `FailbackError`, under its stable code.
    """
    tokens = _tokens_of_earlier_attempt()
    stop = threading.Event()

    def remember(operation: str, token: str | None) -> None:
        if token is None:
            tokens.pop(operation, None)
        else:
            tokens[operation] = token

    def heartbeat() -> None:
        activity.heartbeat(progress() if progress else {"operations": dict(tokens)})

    call = Call(stop=stop, recall=tokens.get, remember=remember)
    loop = asyncio.get_running_loop()
    thread = loop.run_in_executor(_THREADS, work, call)
    try:
        while not thread.done():
            heartbeat()
            await asyncio.wait({thread}, timeout=HEARTBEAT_SECONDS)
    except asyncio.CancelledError:
        stop.set()
        while not thread.done():
            heartbeat()
            await asyncio.wait({thread}, timeout=HEARTBEAT_SECONDS)
        thread.exception()  # looked at, so that asyncio does not complain; the cancel says it all
        raise
    finally:
        heartbeat()
    try:
        return thread.result()
    except FailbackError as error:
        if error.code in _SHOWN_SOON and activity.info().attempt >= _ATTEMPTS_FOR_SURPRISES:
            raise ApplicationError(str(error)[:2000], type=error.code, non_retryable=True) from None
        raise as_application_error(error) from None
    except Exception as error:
        if activity.info().attempt < _ATTEMPTS_FOR_SURPRISES:
            raise
        text = f"{type(error).__name__}: {error}"[:2000]
        raise ApplicationError(text, type="FB-INTERNAL", non_retryable=True) from None


def as_application_error(error: FailbackError) -> ApplicationError:
    """The error as Temporal keeps it: code as `type`, no cause chain (a cause may hold secrets)."""
    after = getattr(error, "retry_after_seconds", None)
    return ApplicationError(
        str(error)[:2000],
        type=error.code,
        non_retryable=not error.retryable,
        next_retry_delay=timedelta(seconds=after) if after else None,
    )


def _tokens_of_earlier_attempt() -> dict[str, str]:
    details = activity.info().heartbeat_details
    first = details[0] if details else None
    operations = first.get("operations") if isinstance(first, dict) else None
    return dict(operations) if isinstance(operations, dict) else {}
