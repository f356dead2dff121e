"""The way to Temporal: by its own configuration file and variables (`TEMPORAL_ADDRESS`,
`TEMPORAL_PROFILE`, …), with errors that say what to do. `temporalio` is imported only when needed:
it takes half a second that `failback --help` should not cost."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from models.calls import CONTROL_QUEUE
from models.errors import FailbackError, InvalidConfiguration, NotFound, Unreachable, error_class

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.envconfig import ClientConnectConfig

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_TIMEOUT = timedelta(seconds=5)
RPC_TIMEOUT = timedelta(seconds=10)
"""One call to the server. A query waits for a worker, so it is not much shorter."""

WORKER_WAIT_SECONDS = 5.0
"""How long a worker that is just starting may take to be seen."""

_START_WORKER = (
    "Start `failback worker control` beside Temporal, or look at its log; "
    "TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE must be the same for both."
)


def connection() -> ClientConnectConfig:
    """Where Temporal is, as configured.

    Raises:
        InvalidConfiguration: The configuration file or the profile cannot be used.
    """
    from temporalio.envconfig import ClientConfig

    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as error:
        raise InvalidConfiguration(
            f"Temporal's configuration cannot be used: {error}.",
            hint="Check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and the profile in that file.",
        ) from error
    config.setdefault("target_host", DEFAULT_ADDRESS)
    return config


async def connect() -> Client:
    """A client that speaks the product's models.

    Raises:
        InvalidConfiguration: The configuration cannot be used.
        Unreachable: Nothing answers there within `CONNECT_TIMEOUT`.
    """
    from temporalio.client import Client
    from temporalio.contrib.pydantic import pydantic_data_converter
    from temporalio.runtime import Runtime, TelemetryConfig
    from temporalio.service import RPCError

    config = connection()
    address = config.get("target_host", DEFAULT_ADDRESS)
    try:
        # The core's own log lines would land between the lines of this program's output.
        runtime = Runtime(telemetry=TelemetryConfig(logging=None))
        return await asyncio.wait_for(
            Client.connect(
                **config,
                data_converter=pydantic_data_converter,
                runtime=runtime,
                connect_timeout=CONNECT_TIMEOUT,
            ),
            # The handshake after the connection has no limit of its own.
            timeout=2 * CONNECT_TIMEOUT.total_seconds(),
        )
    except (RuntimeError, RPCError, OSError, TimeoutError) as error:
        raise Unreachable(
            f"Temporal does not answer at {address}{_reason(error)}.",
            hint="Start the server, or set TEMPORAL_ADDRESS (or TEMPORAL_PROFILE) to where it is.",
        ) from error


def _reason(error: BaseException) -> str:
    # The transport wraps the one telling phrase in a page of its own structure.
    phrase = re.search(r'message: "([^"]+)"', str(error))
    if phrase:
        return f" ({phrase[1].lower()})"
    lines = str(error).strip().splitlines()
    return f" ({lines[0][:160].rstrip('. ')})" if lines else ""


@contextmanager
def answers(subject: str) -> Iterator[None]:
    """Turn Temporal's errors into the product's. `subject` is what was asked for.

    Raises:
        NotFound, Unreachable, InvalidConfiguration, FailbackError: What the server meant.
    """
    from temporalio.client import WorkflowFailureError, WorkflowQueryFailedError
    from temporalio.service import RPCError

    try:
        yield
    except RPCError as error:
        raise _translated(error, subject) from error
    except WorkflowFailureError as error:
        raise failure(error.cause, subject) from error
    except WorkflowQueryFailedError as error:
        raise FailbackError(
            f"{subject}: the control worker could not answer: {error}.",
            hint="Is the worker of the same release as this command?",
        ) from error


def _translated(error: Exception, subject: str) -> FailbackError:
    from temporalio.service import RPCError, RPCStatusCode

    assert isinstance(error, RPCError)
    said = error.message
    if error.status is RPCStatusCode.NOT_FOUND:
        if "amespace" in said:
            return InvalidConfiguration(
                f"Temporal knows no such namespace: {said}", hint="Set TEMPORAL_NAMESPACE."
            )
        return NotFound(
            f"{subject}: Temporal knows no such run.", hint="`failback list --all` shows all runs."
        )
    if error.status is RPCStatusCode.FAILED_PRECONDITION and "poller" in said:
        return no_worker()
    # The core reports its own deadline as a cancellation.
    late = error.status is RPCStatusCode.CANCELLED and "imeout" in said
    if late or error.status is RPCStatusCode.DEADLINE_EXCEEDED:
        return Unreachable(f"{subject}: no answer in time.", hint=_START_WORKER)
    if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.CANCELLED):
        return Unreachable(
            f"{subject}: Temporal stopped answering: {said}.",
            hint="The run's state is kept; say it again when the server is back.",
        )
    if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED):
        return InvalidConfiguration(
            f"Temporal refuses this client: {said}.",
            hint="Check the API key or the client certificate of your profile.",
        )
    if error.status is RPCStatusCode.INVALID_ARGUMENT and "earch attribute" in said:
        return InvalidConfiguration(
            f"Temporal lacks the product's search attributes: {said}.",
            hint="The control worker registers them when it starts; start it once.",
        )
    return FailbackError(f"{subject}: Temporal refused: {said}.")


def failure(cause: BaseException, subject: str) -> FailbackError:
    """The product's error inside a failed workflow or update, by its stable code."""
    from temporalio.exceptions import ApplicationError, TerminatedError

    deepest: BaseException = cause
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    if isinstance(deepest, ApplicationError):
        return error_class(deepest.type or "")(deepest.message)
    if isinstance(deepest, TerminatedError):
        return FailbackError(
            f"{subject}: ended from outside: {deepest.message}.", hint="Run it once more."
        )
    return FailbackError(f"{subject}: {str(deepest) or type(deepest).__name__}.")


def no_worker() -> Unreachable:
    """What to say when nobody takes the work."""
    return Unreachable(
        f"No control worker is polling the task queue {CONTROL_QUEUE!r}.", hint=_START_WORKER
    )


async def require_worker(client: Client, *, wait_seconds: float = WORKER_WAIT_SECONDS) -> None:
    """Make sure that somebody takes the work.

    A worker that died is still listed for some minutes, so whoever waits for an answer needs a
    limit of its own.

    Raises:
        Unreachable: No control worker was seen.
    """
    from temporalio.api.enums.v1 import TaskQueueType
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=CONTROL_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        with answers("the control worker"):
            description = await client.workflow_service.describe_task_queue(
                request, timeout=RPC_TIMEOUT
            )
        if description.pollers:
            return
        if asyncio.get_running_loop().time() >= deadline:
            raise no_worker()
        await asyncio.sleep(0.25)


def person() -> str:
    """Who says it: `FAILBACK_BY`, or the login name."""
    import getpass

    try:
        return os.environ.get("FAILBACK_BY") or getpass.getuser()
    except (OSError, KeyError):
        # A container without a passwd entry.
        return "unknown"
