"""`failback doctor`, `schema`, `backup` and `restore`: what keeps an installation in order."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from models.calls import CONTROL_QUEUE, DOCTOR_WORKFLOW, DoctorInput, DoctorReport
from models.errors import AlreadyRunning, FailbackError, LeftoversFound, NotFound, Unreachable
from models.spec import FailbackSpec
from models.units import human_size
from starter import exits, render, server_state
from starter.client import (
    DEFAULT_ADDRESS,
    RPC_TIMEOUT,
    answers,
    connect,
    connection,
    require_worker,
)
from starter.options import AsJson, SpecFile, Yes, read_spec
from starter.runs import describe, list_runs, read_state
from starter.terminal import confirm, emit, error_document, interactive, say, show_error

if TYPE_CHECKING:
    from temporalio.client import Client

Database = Annotated[
    Path, typer.Option("--db", help="The server's file, given to it as --db-filename.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    for command in (doctor, schema, backup, restore):
        app.command(rich_help_panel="Keep in order")(command)


def doctor(
    spec_file: SpecFile,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is left of runs that have ended.")
    ] = False,
    timeout: Annotated[int, typer.Option(min=5, help="Seconds to wait.")] = 300,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """List what earlier runs left behind, and remove it if asked.

    Looks at the places that the spec names: snapshots and grants in Azure, disks attached to the
    mover, created machines and checkpoints. Only what carries the tag of a run counts, and nothing
    of a run that goes on. Exit status 7 when something is left, 0 when nothing is (any more).

    Example:

        failback doctor app01.yaml

        failback doctor app01.yaml --remove

    Next: with --remove it asks before it removes; look again afterwards.
    """
    spec = read_spec(spec_file)
    report = asyncio.run(_doctor(spec, remove, timeout, ask=not yes and not as_json))
    gone = {item.model_dump_json() for item in report.removed}
    left = [item for item in report.leftovers if item.model_dump_json() not in gone]
    problem: FailbackError | None = None
    if left:
        problem = LeftoversFound(
            f"{len(left)} left behind.",
            hint="Look at what could not be removed."
            if remove
            else f"`failback doctor {spec_file} --remove` removes it.",
        )
    elif report.problems:
        problem = FailbackError(f"Not everything could be looked at: {report.problems[0]}")
    if as_json:
        emit(report.model_dump(mode="json") | (error_document(problem) if problem else {}))
    else:
        say(render.doctor_table(report))
    if problem:
        show_error(problem.code, problem.message, problem.hint)
        return problem.exit_status
    return exits.OK


async def _doctor(spec: FailbackSpec, remove: bool, timeout: int, *, ask: bool) -> DoctorReport:
    client = await connect()
    await require_worker(client)
    report = await _look(client, spec, timeout, remove=False)
    if not remove or not report.leftovers:
        return report
    if ask and interactive():
        say(render.doctor_table(report))
        confirm(f"Remove these {len(report.leftovers)}?")
    # The live runs are asked again: one may have started while the question stood. And only what
    # was shown is removed: a run that starts after that is no business of the doctor's.
    shown = sorted({leftover.run_id for leftover in report.leftovers})
    return await _look(client, spec, timeout, remove=True, only_runs=shown)


async def _look(
    client: Client,
    spec: FailbackSpec,
    timeout: int,
    *,
    remove: bool,
    only_runs: list[str] | None = None,
) -> DoctorReport:
    from temporalio.common import WorkflowIDConflictPolicy
    from temporalio.exceptions import WorkflowAlreadyStartedError

    live = await _live_runs(client, spec)
    subject = f"the doctor of {spec.machine}"
    with answers(subject):
        try:
            report = await asyncio.wait_for(
                client.execute_workflow(
                    DOCTOR_WORKFLOW,
                    DoctorInput(spec=spec, live_runs=live, only_runs=only_runs, remove=remove),
                    id=f"doctor-{spec.machine}",
                    task_queue=CONTROL_QUEUE,
                    # Another doctor may be removing; two must not decide on two lists.
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    # Ours ends first, and says more; this one is for when we are killed.
                    execution_timeout=timedelta(seconds=timeout) + timedelta(seconds=15),
                    result_type=DoctorReport,
                    static_summary="Removes leftovers" if remove else "Looks for leftovers",
                    rpc_timeout=RPC_TIMEOUT,
                ),
                timeout,
            )
        except WorkflowAlreadyStartedError as error:
            raise AlreadyRunning(
                f"A doctor looks at {spec.machine} already.", hint="Wait for it, then look again."
            ) from error
        except TimeoutError as error:
            raise Unreachable(
                f"{subject} gave no answer within {timeout} s.",
                hint="Look at the control worker's log; `--timeout` waits longer.",
            ) from error
    if not isinstance(report, DoctorReport):
        raise FailbackError(f"{subject} answered something that is no report.")
    return report


async def _live_runs(client: Client, spec: FailbackSpec) -> list[str]:
    """Run ids of everything that goes on. One that cannot be asked stops the doctor: what is its
    own must not look left over."""
    rows = await list_runs(client, running_only=True)
    machines = {row.machine for row in rows}
    try:
        # Lists lag behind on a cluster; this machine's own run is asked for by name.
        status = (await describe(client, spec.machine)).status
        if status is not None and status.name == "RUNNING":
            machines.add(spec.machine)
    except NotFound:
        pass
    return [(await read_state(client, machine)).run_id for machine in sorted(machines)]


def schema(
    what: Annotated[str, typer.Argument(metavar="[spec]", help="Only `spec` so far.")] = "spec",
    as_json: AsJson = False,
) -> int:
    """Print the JSON Schema of a spec, for editors and checks.

    Always JSON; --json changes nothing.

    Example:

        failback schema > failback-spec.schema.json

    Next: name the file in your editor's YAML settings, or begin a spec with the comment
    `# yaml-language-server: $schema=failback-spec.schema.json`.
    """
    if what != "spec":
        raise typer.BadParameter(f"there is no schema of {what!r}; say `failback schema spec`")
    sys.stdout.write(json.dumps(spec_schema(), indent=2, ensure_ascii=False) + "\n")
    return exits.OK


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of a spec file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:failback:spec:v1",
        **FailbackSpec.model_json_schema(by_alias=True),
    }


def backup(
    db: Database,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the backup goes.")],
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Back up the embedded Temporal server: all runs, whatever their phase.

    Works while the server runs, without stopping it, and after it was killed. The copy is checked
    before it appears under its name. For a server on PostgreSQL use that database's own tools.

    Example:

        failback backup --db temporal.db --output temporal-backup.db

    Next: keep the file elsewhere. `failback restore` brings it back.
    """
    done = server_state.back_up(db, output, overwrite=force)
    return _copied("backed_up", done, as_json)


def restore(
    db: Database,
    backup_file: Annotated[Path, typer.Option("--from", help="The backup.")],
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Bring the embedded Temporal server's state back from a backup.

    Stop the server first: a restore is refused while anybody has the file open. A former state is
    kept beside the new one. Runs go on where they were at the time of the backup.

    Example:

        failback restore --from temporal-backup.db --db temporal.db

    Next: start the server on that file, at the same address, then the workers.
    """
    address = connection().get("target_host", DEFAULT_ADDRESS)
    done = server_state.restore(backup_file, db, overwrite=force, address=address)
    return _copied("restored", done, as_json)


def _copied(verb: str, done: server_state.Copied, as_json: bool) -> int:
    if as_json:
        emit(
            {
                verb: str(done.path),
                "bytes": done.bytes,
                "workflow_executions": done.workflows,
                "former_state": str(done.replaced) if done.replaced else None,
            }
        )
        return exits.OK
    say(
        f"{verb.replace('_', ' ').capitalize()}: [bold]{escape(str(done.path))}[/bold], "
        f"{human_size(done.bytes)}, {done.workflows} workflow executions, checked."
    )
    if done.replaced:
        say(f"The former state is at {escape(str(done.replaced))}.")
    return exits.OK
