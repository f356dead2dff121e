"""Long-running operations that outlive a process.

An operation's continuation token is handed to `Call.remember` as soon as Azure has accepted it, so
that another attempt polls the same operation instead of beginning a second one. A token that Azure
no longer knows is dropped and the operation begun again, which is safe because every operation
begun here means the same when it is done twice.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Generic, Protocol, TypeVar

from azure.core.exceptions import AzureError
from azure.core.polling import LROPoller
from azure.mgmt.core.polling.arm_polling import ARMPolling

from models.errors import AzureUnavailable, FailbackError, Stopped
from platforms.azure.errors import classify, guarded, retry_after_seconds, status_of
from platforms.azure.settings import AzureSettings
from platforms.base import Call

_log = logging.getLogger(__name__)

Result = TypeVar("Result", covariant=True)
# How soon a stop is noticed while waiting.
_STOP_SECONDS = 0.2
# Polls that fail in a row before the attempt ends; the next one resumes by the token.
_POLL_FAILURES = 4


class Begin(Protocol[Result]):
    """An SDK method `begin_…` with its arguments bound."""

    def __call__(self, **polling: Any) -> LROPoller[Result]: ...


class OperationTimedOut(Exception):
    """The operation still runs after the time its caller gave it."""


class Running(Generic[Result]):
    """An operation that Azure has accepted. `ended` says that Azure named its outcome."""

    def __init__(
        self, name: str, doing: str, begin: Begin[Result], call: Call, settings: AzureSettings
    ) -> None:
        self.ended = False
        self.resumed = False
        self._name = name
        self._doing = doing
        self._begin = begin
        self._call = call
        self._settings = settings
        self._poller = self._resume() or self._begin_anew()

    def finish(self, timeout_seconds: float | None = None) -> Result:
        """Wait for the outcome.

        Raises:
            OperationTimedOut: It runs on at Azure; its token is forgotten.
            Stopped: The caller was told to stop; the token is kept.
        """
        seconds = self._settings.operation_seconds if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + seconds
        try:
            self._wait(deadline)
            result = self._poller.result()
        except AzureError as error:
            failure = self._outcome(error)
        else:
            self.ended = True
            self._call.remember(self._name, None)
            return result
        if failure is None:
            self._poller = self._begin_anew()
            return self.finish(max(0.0, deadline - time.monotonic()))
        raise failure

    def _wait(self, deadline: float) -> None:
        while not self._poller.done():
            if self._call.stop.is_set():
                raise Stopped(f"{self._doing}: stopped while Azure works on it.")
            if time.monotonic() >= deadline:
                self._call.remember(self._name, None)
                raise OperationTimedOut(self._doing)
            self._poller.wait(min(_STOP_SECONDS, max(0.0, deadline - time.monotonic())))

    def _outcome(self, error: AzureError) -> FailbackError | None:
        """The error to raise, or `None` if the operation was lost and is to be begun again."""
        status = status_of(error)
        if self.resumed and status in (400, 404, 410):
            _log.info("%s: Azure no longer knows the operation; it is begun again", self._doing)
            return None
        # Azure could not be asked: the operation may well run on, so its token is kept.
        unknown = status is None or status in (401, 403, 408, 429) or status >= 500
        if not unknown:
            self.ended = True
            self._call.remember(self._name, None)
        return classify(error, self._doing)

    def _resume(self) -> LROPoller[Result] | None:
        token = self._call.recall(self._name)
        if not token:
            return None
        try:
            poller = self._begin(continuation_token=token, polling=self._polling())
        except (AzureError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.info("%s: the kept token is of no use (%s)", self._doing, type(error).__name__)
            return None
        self.resumed = True
        return poller

    def _begin_anew(self) -> LROPoller[Result]:
        self.resumed = False
        poller = guarded(self._doing, lambda: self._begin(polling=self._polling()))
        self._call.remember(self._name, poller.continuation_token())
        return poller

    def _polling(self) -> _Polling:
        return _Polling(self._settings.polling_interval_seconds, self._call.stop)


class _Polling(ARMPolling):
    """Polls as the SDK does, but ends when told to and survives a few failed polls."""

    def __init__(self, interval_seconds: float, stop: threading.Event) -> None:
        super().__init__(interval_seconds)
        self._stop = stop

    def _sleep(self, delay: float) -> None:
        if self._stop.wait(delay):
            raise Stopped("Told to stop while an operation runs at Azure.")

    def request_status(self, status_link: str) -> Any:
        for attempt in range(1, _POLL_FAILURES + 1):
            try:
                response = super().request_status(status_link)
            except AzureError as error:
                if attempt == _POLL_FAILURES:
                    raise
                self._sleep(retry_after_seconds(error) or self._timeout)
                continue
            status = response.http_response.status_code
            if attempt == _POLL_FAILURES or not (status in (408, 429) or status >= 500):
                return response
            self._pipeline_response = response
            self._sleep(self._extract_delay())
        raise AssertionError("unreachable: the last attempt returns or raises")


def finish(running: Running[Result]) -> Result:
    """Wait for the outcome.

    Raises:
        AzureUnavailable: It takes longer than `operation_seconds`; it runs on at Azure.
    """
    try:
        return running.finish()
    except OperationTimedOut as late:
        doing = str(late)
    raise AzureUnavailable(f"{doing}: not done in time.", hint="It runs on and is looked at again.")


def run_operation(
    name: str, doing: str, begin: Begin[Result], call: Call, settings: AzureSettings
) -> Result:
    """Begin or resume an operation and wait for its outcome, as `finish` does."""
    return finish(Running(name, doing, begin, call, settings))


def without_memory(call: Call) -> Call:
    """The same call for an operation whose result is a secret: its token would lead to it."""
    return Call(stop=call.stop)
