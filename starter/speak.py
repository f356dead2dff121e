"""How a word reaches a run: as an update, which the run checks and answers at once, or as a signal,
which waits for it while no worker runs. Both carry the same message under the same name."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from models.errors import FailbackError, NotFound, Rejected, Unreachable
from models.messages import Message, Reply
from models.spec import workflow_id
from starter.client import RPC_TIMEOUT, answers, failure, require_worker
from starter.runs import describe

if TYPE_CHECKING:
    from temporalio.client import Client

ANSWER_SECONDS = 30.0
"""How long a run may take to answer an update; it answers in milliseconds while a worker runs."""


async def signal(client: Client, machine: str, name: str, message: Message) -> None:
    """Leave a message for a run. It is acted on when a worker runs.

    Raises:
        NotFound: There is no such run.
        Rejected: The run has ended.
    """
    handle = client.get_workflow_handle(workflow_id(machine))
    try:
        with answers(f"the failback of {machine}"):
            await handle.signal(name, message, rpc_timeout=RPC_TIMEOUT)
    except NotFound as error:
        raise await _missing(client, machine, name) from error


async def update(client: Client, machine: str, name: str, message: Message) -> Reply:
    """Say something to a run and bring its answer. The same `request_id` acts once.

    Raises:
        NotFound: There is no such run.
        Rejected: The run does not accept it now; the message says what it accepts.
        Unreachable: Nobody answers.
    """
    from temporalio.client import (
        WorkflowUpdateFailedError,
        WorkflowUpdateRPCTimeoutOrCancelledError,
    )

    subject = f"the failback of {machine}"
    handle = client.get_workflow_handle(workflow_id(machine))
    # Asked first: an update to an absent worker would wait, and a missing run is the likelier slip.
    description = await describe(client, machine)
    if description.status is not None and description.status.name != "RUNNING":
        raise await _missing(client, machine, name)
    try:
        await require_worker(client)
    except Unreachable as error:
        raise Unreachable(
            error.message,
            hint=f"{error.hint} Or add --signal: it is kept until a worker runs.",
        ) from error
    try:
        with answers(subject):
            reply = await asyncio.wait_for(
                handle.execute_update(
                    name,
                    message,
                    id=message.request_id,
                    result_type=Reply,
                    rpc_timeout=timedelta(seconds=ANSWER_SECONDS),
                ),
                ANSWER_SECONDS,
            )
    except WorkflowUpdateFailedError as error:
        raise _refused(error, subject, name) from error
    except NotFound as error:
        raise await _missing(client, machine, name) from error
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise Unreachable(
            f"{subject} did not answer to `{name}` within {ANSWER_SECONDS:.0f} s.",
            hint=f"Say it again with --request-id {message.request_id} (it acts once), "
            "or with --signal, which is kept until a worker runs.",
        ) from error
    if not isinstance(reply, Reply):
        raise FailbackError(f"{subject} answered to `{name}` with something that is no reply.")
    if not reply.accepted:
        raise Rejected(
            f"{subject} does not accept `{name}`: {reply.message}", hint=_option(reply.message)
        )
    return reply


def _option(message: str) -> str:
    """The option that says what a refusal asks for."""
    for field in ("discard_onprem_changes", "override"):
        if f"`{field}`" in message:
            return f"If that is meant, add --{field.replace('_', '-')}."
    return ""


def _refused(error: Exception, subject: str, name: str) -> FailbackError:
    from temporalio.client import WorkflowUpdateFailedError
    from temporalio.exceptions import ApplicationError

    assert isinstance(error, WorkflowUpdateFailedError)
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == "AcceptedUpdateCompletedWorkflow":
        return Rejected(
            f"{subject} ended while it heard `{name}`.", hint="`failback show` says how it ended."
        )
    found = failure(cause, subject)
    found.hint = found.hint or _option(found.message)
    return found


async def _missing(client: Client, machine: str, name: str) -> FailbackError:
    """Why nobody hears: the run has ended, or there never was one."""
    description = await describe(client, machine)
    status = description.status.name.lower() if description.status else "over"
    return Rejected(
        f"`{name}` is not accepted: the failback of {machine} is over ({status}).",
        hint=f"`failback show {machine}` says how it ended.",
    )
