"""The words that weigh more: `verify`, which reads everything again, `commit`, which ends the way
back, and `abort`, which takes it. `commit` and `abort` ask before they are sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from models.errors import FailbackError, InvalidConfiguration, Rejected, VerificationFailed
from models.messages import Abort, Commit, Reply, Verify
from models.status import Phase, VerificationRecord
from models.units import human_size
from starter import exits, render
from starter.client import connect
from starter.commands.sending import (
    AsSignal,
    Reason,
    RequestId,
    envelope_for,
    say_plainly,
    send,
    tell,
)
from starter.options import AsJson, By, RunningMachine, Yes
from starter.runs import observations, read_state
from starter.terminal import confirm, interactive, say

if TYPE_CHECKING:
    from temporalio.client import Client

_VERIFY_LOOK_SECONDS = 1.0
_VERIFY_PATIENCE_SECONDS = 600.0


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    for command in (verify, commit, abort):
        app.command(rich_help_panel="Speak to a run")(command)


def commit(
    machine: RunningMachine,
    override: Annotated[
        bool, typer.Option("--override", help="Commit although health checks do not hold.")
    ] = False,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """End the failback for good: the Azure machine and its disks are deleted.

    Shows by name what is deleted and asks; without a terminal it needs --yes. There is no way back
    from here. Where the spec wants two approvers, two people must say it.

    Example:

        failback commit app01 --by alice

    Next: `failback report app01` writes the page to keep.
    """
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    if not yes and (as_json or not interactive()):
        raise InvalidConfiguration(
            f"`commit` deletes the Azure machine of {machine} for good, and nobody can be "
            "asked here.",
            hint="Add --yes if that is what you want.",
        )

    async def speak_up() -> Reply | None:
        client = await connect()
        if not yes:
            await _ask_for_commit(client, machine)
        message = envelope.message(Commit, override=override)
        return await send(client, machine, "commit", message, envelope)

    tell(machine, "commit", envelope, asyncio.run(speak_up()), f"failback watch {machine}")
    return exits.OK


async def _ask_for_commit(client: Client, machine: str) -> None:
    state = await read_state(client, machine)
    say(render.deletions(state.cloud, state.spec))
    if state.spec.commit.approvers > 1:
        approved = ", ".join(state.approvals) or "nobody yet"
        say(f"Needs {state.spec.commit.approvers} people; approved by: {escape(approved)}.")
    confirm(f"Commit the failback of {machine}?")


def abort(
    machine: RunningMachine,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard-onprem-changes",
            help="Throw away what the on-premises machine wrote since it booted.",
        ),
    ] = False,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Undo everything: both sides as they were.

    The on-premises disks are rolled back block by block, what the run created is removed, the Azure
    machine runs. Possible until commit. Once the on-premises machine has booted,
    --discard-onprem-changes must say that its own changes may go.

    Example:

        failback abort app01 --reason "wrong window"

    Next: `failback watch app01` until it says rolled back (exit status 8).
    """
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    if not yes and not as_json and interactive():
        confirm(f"Abort the failback of {machine} and put both sides back?")
    message = envelope.message(Abort, discard_onprem_changes=discard)
    return say_plainly(machine, "abort", message, envelope, f"failback watch {machine}")


def verify(
    machine: RunningMachine,
    wait: Annotated[bool, typer.Option(help="Wait for the outcome.")] = True,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Read every byte on both sides again and compare. Possible while the run is ready.

    Reads whole disks, so it takes as long as a full copy would. Waits for the outcome; exit status
    0 when every disk is equal. Ctrl-C stops waiting, not the comparison.

    Example:

        failback verify app01

    Next: `failback show app01` keeps the outcome; when it is equal, `failback run-failover app01`.
    """
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    wait = wait and not signal

    async def speak_up() -> tuple[Reply | None, list[VerificationRecord]]:
        client = await connect()
        before = await read_state(client, machine) if wait else None
        message = envelope.message(Verify)
        reply = await send(client, machine, "verify", message, envelope)
        if before is None or reply is None:
            return reply, []
        if reply.repeated:
            return reply, before.verifications
        return reply, await _outcome(client, machine, before.verifications)

    reply, records = asyncio.run(speak_up())
    tell(
        machine,
        "verify",
        envelope,
        reply,
        f"failback show {machine}",
        verifications=render.plain(records),
    )
    if not as_json:
        for record in records:
            verdict = "equal" if record.equal else "DIFFERENT"
            read = human_size(record.bytes_read)
            say(f"{escape(record.disk_id)}: {verdict}, {read} read {escape(record.detail)}")
    if any(not record.equal for record in records):
        return VerificationFailed.exit_status
    return exits.OK


async def _outcome(
    client: Client, machine: str, before: list[VerificationRecord]
) -> list[VerificationRecord]:
    """Wait until every disk has a record that was not there before."""
    known = {(record.disk_id, record.at) for record in before}
    async for seen in observations(
        client, machine, interval=_VERIFY_LOOK_SECONDS, patience=_VERIFY_PATIENCE_SECONDS
    ):
        state = seen.state
        if state is None:
            continue
        new = [r for r in state.verifications if (r.disk_id, r.at) not in known]
        if {record.disk_id for record in new} >= {disk.disk_id for disk in state.attached}:
            return new
        if state.blocked:
            raise FailbackError(
                f"The verification of {machine} is blocked: {state.blocked.message}",
                hint=f"`failback retry {machine}` or `failback abort {machine}`.",
            )
        if state.phase is not Phase.READY:
            phase = render.words(state.phase.value)
            raise Rejected(
                f"The verification of {machine} did not finish: the run is {phase} now.",
                hint=f"`failback show {machine}` shows what was compared.",
            )
    raise FailbackError(f"The failback of {machine} ended before the verification did.")
