"""What the commands ask Temporal about runs: which there are, what one knows, and how far its
running copies are. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from models import search
from models.calls import FAILBACK_WORKFLOW, MOVER_COPY, MOVER_VERIFY_ALL
from models.errors import FailbackError, NotFound, Unreachable
from models.spec import workflow_id
from models.status import DiskProgress, RunState
from starter.client import (
    RPC_TIMEOUT,
    WORKER_WAIT_SECONDS,
    answers,
    connect,
    require_worker,
)

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription

_RUNNING = f"WorkflowType='{FAILBACK_WORKFLOW}' AND ExecutionStatus='Running'"
_ALL = f"WorkflowType='{FAILBACK_WORKFLOW}' AND ExecutionStatus!='ContinuedAsNew'"


@dataclass(frozen=True)
class RunRow:
    """One run in a list. `status` is Temporal's own word, in lower case."""

    machine: str
    phase: str
    plan: str
    platform: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    temporal_run_id: str


@dataclass(frozen=True)
class Observation:
    """What could be seen of a run at one moment.

    Attributes:
        at: When it was seen.
        state: What the run knows; the newest known one where it could not be asked.
        progress: The running copies, by disk.
        status: Temporal's word for the run, in lower case: `running`, `completed`, `terminated`, …
        problem: Why the run could not be asked this time.
    """

    at: datetime
    state: RunState | None
    progress: list[DiskProgress] = field(default_factory=list)
    status: str = "running"
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether Temporal runs it no longer."""
        return self.status != "running"


async def list_runs(client: Client, *, running_only: bool, limit: int = 1000) -> list[RunRow]:
    """The newest runs first, as Temporal's visibility store knows them (late on a cluster)."""
    rows: list[RunRow] = []
    with answers("the list of runs"):
        async for run in client.list_workflows(
            _RUNNING if running_only else _ALL, limit=limit, rpc_timeout=RPC_TIMEOUT
        ):
            attributes = {pair.key.name: str(pair.value) for pair in run.typed_search_attributes}
            rows.append(
                RunRow(
                    machine=attributes.get(search.MACHINE) or run.id.removeprefix(workflow_id("")),
                    phase=attributes.get(search.PHASE, ""),
                    plan=attributes.get(search.PLAN, ""),
                    platform=attributes.get(search.PLATFORM, ""),
                    status=run.status.name.lower() if run.status else "",
                    started_at=run.start_time,
                    ended_at=run.close_time,
                    temporal_run_id=run.run_id,
                )
            )
    return rows


async def known_machines(*, running_only: bool) -> list[str]:
    """Names for completion."""
    rows = await list_runs(await connect(), running_only=running_only, limit=200)
    return sorted({row.machine for row in rows})


async def describe(client: Client, machine: str) -> WorkflowExecutionDescription:
    """Temporal's description of a machine's newest run.

    Raises:
        NotFound: There is none.
    """
    with answers(f"the failback of {machine}"):
        return await client.get_workflow_handle(workflow_id(machine)).describe(
            rpc_timeout=RPC_TIMEOUT
        )


async def read_state(client: Client, machine: str) -> RunState:
    """All that a machine's newest run knows, whether it goes on or has ended.

    Raises:
        NotFound: There is none.
        Unreachable: A run that goes on is asked through a control worker, and there is none.
    """
    return await _state(client, machine, await describe(client, machine))


async def _state(
    client: Client,
    machine: str,
    description: WorkflowExecutionDescription,
    *,
    patience: float = WORKER_WAIT_SECONDS,
) -> RunState:
    """A run that has ended left its state as its result, which needs no worker to be read."""
    with answers(f"the failback of {machine}"):
        if _status(description) == "completed":
            ended = client.get_workflow_handle(
                workflow_id(machine), run_id=description.run_id, result_type=RunState
            )
            state = await ended.result(rpc_timeout=RPC_TIMEOUT)
        else:
            # Asked first, because a query without a worker waits for its whole deadline.
            await require_worker(client, wait_seconds=patience)
            state = await client.get_workflow_handle(workflow_id(machine)).query(
                "status", result_type=RunState, rpc_timeout=RPC_TIMEOUT
            )
    if not isinstance(state, RunState):
        raise FailbackError(f"The failback of {machine} answered something that is no status.")
    return state


async def observe(client: Client, machine: str, last: RunState | None = None) -> Observation:
    """See a run once. What may pass by itself is a `problem`, not an error.

    Raises:
        NotFound: There is no such run.
    """
    now = datetime.now(UTC)
    try:
        description = await describe(client, machine)
        status = _status(description)
        progress = await _progress(client, description)
    except Unreachable as error:
        return Observation(now, last, problem=error.message)
    try:
        return Observation(
            now, await _state(client, machine, description, patience=0), progress, status
        )
    except NotFound:
        raise
    except FailbackError as error:
        return Observation(now, last, progress, status, error.message)


async def observations(
    client: Client, machine: str, *, interval: float, patience: float
) -> AsyncIterator[Observation]:
    """See a run again and again until it has ended.

    Args:
        interval: Seconds between two looks.
        patience: Seconds for which nobody may answer before this gives up.

    Raises:
        NotFound: There is no such run.
        Unreachable: Nobody answered for `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    heard_at = loop.time()
    state: RunState | None = None
    while True:
        seen = await observe(client, machine, state)
        state = seen.state
        if not seen.problem:
            heard_at = loop.time()
        elif loop.time() - heard_at > patience:
            raise Unreachable(
                f"The failback of {machine} could not be asked for {patience:.0f} s: "
                f"{seen.problem}",
                hint="The run's state is kept; start what is missing and watch again.",
            )
        yield seen
        if seen.ended and (not seen.problem or loop.time() - heard_at > min(patience, 10)):
            return
        await asyncio.sleep(interval)


async def _progress(
    client: Client, description: WorkflowExecutionDescription
) -> list[DiskProgress]:
    """The heartbeats of the running copies, in the order of their disks."""
    found: list[DiskProgress] = []
    for activity in description.raw_description.pending_activities:
        if activity.activity_type.name not in (MOVER_COPY, MOVER_VERIFY_ALL):
            continue
        try:
            details: list[Any] = await client.data_converter.decode(
                list(activity.heartbeat_details.payloads)
            )
            found += [DiskProgress.model_validate(detail) for detail in details]
        except (ValidationError, RuntimeError, ValueError, TypeError):
            # A heartbeat of another release; the bar is missing then, nothing else.
            continue
    return sorted(found, key=lambda disk: disk.disk_id)


def _status(description: WorkflowExecutionDescription) -> str:
    return description.status.name.lower() if description.status else "unknown"
