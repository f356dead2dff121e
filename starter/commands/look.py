"""`failback list`, `show`, `watch` and `report`: everything that only looks at runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape

from models.errors import FailbackError, InvalidConfiguration
from models.status import Phase, RunState
from starter import exits, live, page, render
from starter.client import connect
from starter.options import AsJson, KnownMachine, RunningMachine
from starter.runs import Observation, list_runs, observations, read_state
from starter.terminal import console, emit, emit_line, say

if TYPE_CHECKING:
    from temporalio.client import Client

_LOOK_SECONDS = 0.5
"""Between two looks; a query costs the worker a few milliseconds."""

_PATIENCE_SECONDS = 600.0
"""How long a watch outlives a server or worker that is being restarted."""


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    named: dict[str, Callable[..., int]] = {
        "list": list_,
        "show": show,
        "watch": watch,
        "report": report,
    }
    for name, command in named.items():
        app.command(name, rich_help_panel="Look")(command)


def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also runs that have ended.")] = False,
    phase: Annotated[Phase | None, typer.Option(help="Only runs in this phase.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only runs of this recovery plan.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the machines on their way home.

    Example:

        failback list

        failback list --all --plan shop --json

    Next: `failback show MACHINE` for everything about one of them.
    """

    async def read() -> int:
        rows = await list_runs(await connect(), running_only=not everything)
        rows = [row for row in rows if phase is None or row.phase == phase.value]
        rows = [row for row in rows if plan is None or row.plan == plan]
        if as_json:
            emit({"runs": [vars(row) for row in rows]})
        else:
            say(render.runs_table(rows, everything=everything))
        return exits.OK

    return asyncio.run(read())


def show(machine: KnownMachine, as_json: AsJson = False) -> int:
    """Show everything about one machine's failback.

    Direction, phase, checks, rounds with their bytes, health, what the run changed, who said what,
    and what may be said now. Works for runs that have ended, too.

    Example:

        failback show app01

    Next: `failback watch app01` follows it; `failback report app01` writes it to a file.
    """
    state = asyncio.run(_state(machine))
    if as_json:
        document = state.model_dump(mode="json", by_alias=True)
        document["allowed_messages"] = state.allowed_messages
        document["manifest_roots"] = state.manifest_roots
        emit({**render.direction(state.spec), **document, "machine": machine})
    else:
        say(page.state_page(state))
    return exits.OK


def watch(
    machine: RunningMachine,
    until: Annotated[
        Phase | None, typer.Option(help="Stop watching when this phase is reached.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Follow one machine's failback until it ends.

    Shows a bar per disk, the rate, the round, the predicted downtime, what blocks the run and what
    may be said. Where the output is not a terminal it prints a line per change, with --json an
    object per change. Ctrl-C stops watching, never the run.

    Exit status: 0 when the failback completed (or --until was reached), 8 when it was rolled back.

    Example:

        failback watch app01

        failback watch app01 --until ready && failback run-failover app01

    Next: what the last line offers, for example `failback run-failover app01`.
    """

    async def read() -> int:
        return await follow(await connect(), machine, until=until, as_json=as_json)

    return asyncio.run(read())


def report(
    machine: KnownMachine,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; `failback-MACHINE.html` if not said."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Write one HTML page about a failback, to keep or to send.

    Timeline, rounds and bytes, downtime predicted and measured, proof of equality, checks, who said
    what. The page is complete in itself: no network, no scripts.

    Example:

        failback report app01 --output app01.html

    Next: open the file in any browser, or print it.
    """
    from starter.report import render_report

    state = asyncio.run(_state(machine))
    path = output or Path(f"failback-{machine}.html")
    try:
        path.write_text(render_report(state, now=datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise InvalidConfiguration(
            f"The report cannot be written to {str(path)!r}: {error.strerror}.",
            hint="Give another file with --output.",
        ) from error
    if as_json:
        emit({"machine": machine, "report": str(path), "phase": state.phase.value})
    else:
        say(f"Wrote [bold]{escape(str(path))}[/bold].")
    return exits.OK


async def _state(machine: str) -> RunState:
    return await read_state(await connect(), machine)


async def follow(
    client: Client, machine: str, *, until: Phase | None = None, as_json: bool = False
) -> int:
    """Show a run until it ends or reaches a phase, and return the exit status.

    Raises:
        NotFound: There is no such run.
        Unreachable: Nobody answered for ten minutes.
        FailbackError: The run was ended from outside, without undo.
    """
    out = console()
    drawn = Live(console=out, auto_refresh=False) if out.is_terminal and not as_json else None
    last: object = None
    seen: Observation | None = None
    if drawn:
        drawn.start()
    try:
        async for seen in observations(
            client, machine, interval=_LOOK_SECONDS, patience=_PATIENCE_SECONDS
        ):
            if drawn:
                drawn.update(live.picture(seen), refresh=True)
            else:
                now: object = live.document(seen) if as_json else live.line(seen)
                if now != last:
                    _print_change(seen, as_json=as_json)
                last = now
            if until and seen.state and reached(seen.state, until):
                return exits.OK
            if seen.state and seen.state.phase.ended and not seen.problem:
                break
    finally:
        if drawn:
            drawn.stop()
    return _ended(machine, seen, quiet=as_json)


def _print_change(seen: Observation, *, as_json: bool) -> None:
    if as_json:
        emit_line({"at": seen.at.isoformat(), **live.document(seen)})
    else:
        console().print(f"{seen.at:%H:%M:%S}Z {live.line(seen)}", markup=False, soft_wrap=True)


def reached(state: RunState, wanted: Phase) -> bool:
    """Whether a run is in a phase, has been, or has passed it by."""
    if state.phase is wanted or any(entry.phase is wanted for entry in state.timeline):
        return True
    turning_back = (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    if state.phase in turning_back or wanted in turning_back:
        return False
    return state.phase.position >= wanted.position


def _ended(machine: str, seen: Observation | None, *, quiet: bool) -> int:
    state = seen.state if seen else None
    if state is None or not state.phase.ended:
        status = seen.status if seen else "gone"
        raise FailbackError(
            f"Temporal says that the failback of {machine} is {status}, though it had not ended.",
            hint="No undo was run: see `failback doctor SPEC` for what stands, and start anew.",
        )
    if state.phase is Phase.ROLLED_BACK:
        if not quiet:
            say("Rolled back: both sides are as they were.")
        return exits.ROLLED_BACK
    if not quiet:
        say(f"[green]Completed.[/green] Next: [bold]failback report {escape(machine)}[/bold]")
    return exits.OK
