"""`failback check` and `failback start`: preflight for everybody to read, and the start of a run
once nothing speaks against it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models import search
from models.calls import (
    CONTROL_QUEUE,
    FAILBACK_WORKFLOW,
    PREFLIGHT_WORKFLOW,
    PreflightReport,
    SpecInput,
    StartInput,
)
from models.errors import AlreadyRunning, NotFound, PreflightFailed, Unreachable
from models.machine import Verdict
from models.spec import FailbackSpec
from models.status import Phase
from starter import exits, render
from starter.client import RPC_TIMEOUT, answers, connect, person, require_worker
from starter.commands.look import follow
from starter.options import AsJson, By, SpecFile, Yes, read_spec
from starter.runs import describe, list_runs, read_state
from starter.terminal import confirm, emit, error_document, interactive, say, show_error

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

_SUMMARY_BYTES = 200
"""What the Web UI takes for a summary."""

Timeout = Annotated[
    int, typer.Option(min=5, help="Seconds to wait for all checks before giving up.")
]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command(rich_help_panel="Begin")(check)
    app.command(rich_help_panel="Begin")(start)


def check(spec_file: SpecFile, timeout: Timeout = 180, as_json: AsJson = False) -> int:
    """Run every preflight check of a spec; touch nothing.

    Looks at the Azure machine, the hypervisor host and the mover, and says for each check what was
    seen and, where it does not hold, what to do. Nothing is created, changed or stopped.

    Example:

        failback check app01.yaml

    Next: repair what failed and check again, or `failback start app01.yaml`.
    """
    spec = read_spec(spec_file)
    report = asyncio.run(_check(spec, timeout))
    problem = None if report.passed else _failed(spec, report)
    if as_json:
        document = {**render.direction(spec), **report.model_dump(mode="json", by_alias=True)}
        document["passed"] = report.passed
        emit({**document, **(error_document(problem) if problem else {})})
    else:
        say(render.direction_panel(spec), render.checks_table(report.checks))
    if problem:
        show_error(problem.code, problem.message, problem.hint)
        return problem.exit_status
    if not as_json:
        say(f"[green]All checks hold.[/green] Next: [bold]failback start {spec_file}[/bold]")
    return exits.OK


def start(
    spec_file: SpecFile,
    by: By = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run to its end, like `failback watch`.")
    ] = False,
    timeout: Timeout = 180,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Start a machine's failback, after every check holds.

    Runs the checks first; when one fails, nothing is started and nothing was touched (exit status
    5). The run then snapshots the running Azure machine and brings the on-premises disks in step,
    round after round; the Azure machine goes on serving until somebody says `run-failover`.

    Example:

        failback start app01.yaml --by alice

    Next: `failback watch app01`, and when it is ready `failback run-failover app01`. Changed your
    mind: `failback abort app01` puts both sides back as they were.
    """
    spec = read_spec(spec_file)
    return asyncio.run(_start(spec, by or person(), wait, timeout, yes, as_json))


async def _check(spec: FailbackSpec, timeout: int) -> PreflightReport:
    return await _preflight(await connect(), spec, timeout)


async def _start(
    spec: FailbackSpec, by: str, wait: bool, timeout: int, yes: bool, as_json: bool
) -> int:
    client = await connect()
    await _refuse_second_run(client, spec)
    await _refuse_rival(client, spec)
    report = await _preflight(client, spec, timeout)
    if not as_json:
        say(render.direction_panel(spec), render.checks_summary(report.checks))
    if not report.passed:
        problem = _failed(spec, report)
        if as_json:
            emit({"checks": render.plain(report.checks), **error_document(problem)})
        show_error(problem.code, problem.message, problem.hint)
        return problem.exit_status
    if not yes and not as_json and interactive():
        confirm(f"Start the failback of {spec.machine}?")
    handle = await _start_run(client, spec, by)
    started = {
        **render.direction(spec),
        "workflow_id": handle.id,
        "temporal_run_id": handle.first_execution_run_id,
        "started_by": by,
        "checks": render.plain(report.checks),
    }
    if not wait:
        if as_json:
            emit(started)
        else:
            say(render.started(spec))
        return exits.OK
    return await follow(client, spec.machine, as_json=as_json)


async def _refuse_second_run(client: Client, spec: FailbackSpec) -> None:
    """Say so before the checks: those of a second run would fail for reasons that mislead."""
    try:
        description = await describe(client, spec.machine)
    except NotFound:
        return
    if description.status is not None and description.status.name == "RUNNING":
        raise _already_running(spec, description.start_time.strftime("%Y-%m-%d %H:%M:%S UTC"))


async def _refuse_rival(client: Client, spec: FailbackSpec) -> None:
    """Another run, under another name, may hold one of the two machines already."""
    rows = await list_runs(client, running_only=True)
    others = [row.machine for row in rows if row.machine != spec.machine]
    at_once = asyncio.Semaphore(20)

    async def ask(machine: str) -> None:
        async with at_once:
            try:
                state = await read_state(client, machine)
            except NotFound:
                return  # it ended meanwhile
        clash = "" if state.phase.ended else spec.clash_with(state.spec)
        if clash:
            raise AlreadyRunning(
                f"The failback of {machine} holds {clash}.",
                hint=f"`failback show {machine}` shows it. Is one of the two specs mistaken?",
            )

    await asyncio.gather(*(ask(machine) for machine in others))


def _already_running(spec: FailbackSpec, since: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"A failback of {spec.machine} goes on already, since {since}.",
        hint=f"`failback show {spec.machine}` shows it; `failback abort {spec.machine}` undoes it.",
    )


async def _preflight(client: Client, spec: FailbackSpec, timeout: int) -> PreflightReport:
    from temporalio.common import WorkflowIDConflictPolicy

    await require_worker(client)
    subject = f"the checks of {spec.machine}"
    with answers(subject):
        handle: WorkflowHandle[Any, PreflightReport] = await client.start_workflow(
            PREFLIGHT_WORKFLOW,
            SpecInput(spec=spec, run_id=f"check-{uuid.uuid4().hex[:8]}"),
            id=f"check-{spec.machine}",
            task_queue=CONTROL_QUEUE,
            # A check only reads. The newer spec is the one somebody waits for.
            id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
            # Ours ends first, and says more; this one is for when we are killed.
            execution_timeout=timedelta(seconds=timeout) + timedelta(seconds=15),
            result_type=PreflightReport,
            static_summary=_short(f"Preflight of {spec.machine}, touching nothing"),
            rpc_timeout=RPC_TIMEOUT,
        )
        try:
            return await asyncio.wait_for(handle.result(), timeout)
        except TimeoutError as error:
            await _give_up(handle)
            raise Unreachable(
                f"{subject} gave no answer within {timeout} s; a control worker was seen, but it "
                "may have gone.",
                hint="Look at the worker's log and at the Web UI; `--timeout` waits longer.",
            ) from error
        except asyncio.CancelledError:
            await _give_up(handle)
            raise


async def _give_up(handle: WorkflowHandle[Any, PreflightReport]) -> None:
    from temporalio.service import RPCError

    try:
        await handle.terminate(
            reason="nobody waits for this check any more", rpc_timeout=timedelta(seconds=2)
        )
    except RPCError:
        # It ends by its execution timeout.
        return


async def _start_run(client: Client, spec: FailbackSpec, by: str) -> WorkflowHandle[Any, Any]:
    from temporalio.common import (
        SearchAttributeKey,
        SearchAttributePair,
        TypedSearchAttributes,
        WorkflowIDConflictPolicy,
        WorkflowIDReusePolicy,
    )
    from temporalio.exceptions import WorkflowAlreadyStartedError

    attributes = {
        search.MACHINE: spec.machine,
        search.PHASE: Phase.PREFLIGHT.value,
        search.PLATFORM: spec.on_premises.platform,
        # An attribute without a value is not set; lists show it empty.
        **({search.PLAN: spec.plan} if spec.plan else {}),
    }
    try:
        with answers(f"the failback of {spec.machine}"):
            return await client.start_workflow(
                FAILBACK_WORKFLOW,
                StartInput(spec=spec, started_by=by),
                id=spec.workflow_id,
                task_queue=CONTROL_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
                        for name, value in attributes.items()
                    ]
                ),
                static_summary=_short(
                    f"{spec.machine}: Azure → {spec.on_premises.host} (failback)"
                ),
                static_details=render.details_markdown(spec, by),
                rpc_timeout=RPC_TIMEOUT,
            )
    except WorkflowAlreadyStartedError as error:
        raise _already_running(spec, "a moment ago") from error


def _short(text: str) -> str:
    return text.encode()[:_SUMMARY_BYTES].decode(errors="ignore")


def _failed(spec: FailbackSpec, report: PreflightReport) -> PreflightFailed:
    failed = [c for c in report.checks if c.verdict is Verdict.FAILED]
    names = ", ".join(f"{c.name} ({c.code})" if c.code else c.name for c in failed)
    return PreflightFailed(
        f"{len(failed)} of {len(report.checks)} checks of {spec.machine} failed: {names}. "
        "Nothing was touched.",
        hint="Each check above says what to do; then check again.",
    )
