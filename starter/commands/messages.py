"""The words people say to a run: `run-failover`, `commit`, `abort`, `retry`, `pause`, `resume`,
`limit` and `verify`. Each is sent as an update, or with --signal as a signal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from models.errors import FailbackError, InvalidConfiguration, Rejected, VerificationFailed
from models.messages import (
    Abort,
    Commit,
    Message,
    Pause,
    Reply,
    Resume,
    Retry,
    RunFailover,
    SetLimits,
    Verify,
)
from models.status import Phase, VerificationRecord
from models.units import human_size, parse_size
from starter import exits, render, speak
from starter.client import connect, person
from starter.options import AsJson, By, RunningMachine, Yes
from starter.runs import observations, read_state
from starter.terminal import confirm, emit, interactive, say

if TYPE_CHECKING:
    from temporalio.client import Client

Reason = Annotated[str, typer.Option(help="Why; kept in the audit trail.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Saying the same id twice acts once.", show_default="a new one"),
]
AsSignal = Annotated[
    bool,
    typer.Option(
        "--signal", help="Leave it as a signal: no answer, but kept while no worker runs."
    ),
]

_VERIFY_LOOK_SECONDS = 1.0
_VERIFY_PATIENCE_SECONDS = 600.0


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    named: dict[str, Callable[..., int]] = {
        "run-failover": run_failover,
        "commit": commit,
        "abort": abort,
        "retry": retry,
        "pause": pause,
        "resume": resume,
        "limit": limit,
        "verify": verify,
    }
    for name, command in named.items():
        app.command(name, rich_help_panel="Speak to a run")(command)


@dataclass(frozen=True)
class Envelope:
    """What every message carries, and how it is sent."""

    by: str
    reason: str
    request_id: str
    signal: bool
    as_json: bool

    @property
    def fields(self) -> dict[str, str]:
        """The message's own part."""
        return {"by": self.by, "reason": self.reason, "request_id": self.request_id}


def _envelope(
    by: str | None, reason: str, request_id: str | None, signal: bool, as_json: bool
) -> Envelope:
    return Envelope(by or person(), reason, request_id or str(uuid.uuid4()), signal, as_json)


async def _send(
    client: Client, machine: str, name: str, message: Message, envelope: Envelope
) -> Reply | None:
    """Send one message; `None` for a signal, which is not answered."""
    if envelope.signal:
        await speak.signal(client, machine, name, message)
        return None
    return await speak.update(client, machine, name, message)


def _tell(
    machine: str, name: str, envelope: Envelope, reply: Reply | None, following: str, **more: Any
) -> None:
    """Say what became of it, and what comes next."""
    if envelope.as_json:
        emit(
            {
                "machine": machine,
                "message": name,
                "request_id": envelope.request_id,
                "by": envelope.by,
                "sent_as": "signal" if envelope.signal else "update",
                "reply": reply.model_dump(mode="json") if reply else None,
                **more,
            }
        )
        return
    if reply is None:
        said = "Left as a signal; it is acted on as soon as a control worker runs."
    else:
        said = escape(reply.message) + (" (said before; acted on once)" if reply.repeated else "")
    say(f"{said}\nNext: [bold]{escape(following)}[/bold]")


def _say_plainly(
    machine: str, name: str, message: Message, envelope: Envelope, following: str
) -> int:
    async def send() -> Reply | None:
        return await _send(await connect(), machine, name, message, envelope)

    _tell(machine, name, envelope, asyncio.run(send()), following)
    return exits.OK


def run_failover(
    machine: RunningMachine,
    recovery_point: Annotated[str, typer.Option(help="`latest`, or a recovery point.")] = "latest",
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Stop the Azure machine, send the last changes, start the machine on-premises.

    The downtime begins here. Said before the run is ready, it is remembered. `failback show`
    predicts the downtime. `abort` still puts everything back.

    Example:

        failback run-failover app01 --by alice --reason "window 42"

    Next: `failback watch app01`; when health holds and you have looked, `failback commit app01`.
    """
    envelope = _envelope(by, reason, request_id, signal, as_json)
    message = RunFailover(recovery_point=recovery_point, **envelope.fields)
    return _say_plainly(machine, "run_failover", message, envelope, f"failback watch {machine}")


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
    envelope = _envelope(by, reason, request_id, signal, as_json)
    if not yes and (as_json or not interactive()):
        raise InvalidConfiguration(
            f"`commit` deletes the Azure machine of {machine} for good, and nobody can be "
            "asked here.",
            hint="Add --yes if that is what you want.",
        )

    async def send() -> Reply | None:
        client = await connect()
        if not yes:
            await _ask_for_commit(client, machine)
        message = Commit(override=override, **envelope.fields)
        return await _send(client, machine, "commit", message, envelope)

    _tell(machine, "commit", envelope, asyncio.run(send()), f"failback watch {machine}")
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
    envelope = _envelope(by, reason, request_id, signal, as_json)
    if not yes and not as_json and interactive():
        confirm(f"Abort the failback of {machine} and put both sides back?")
    message = Abort(discard_onprem_changes=discard, **envelope.fields)
    return _say_plainly(machine, "abort", message, envelope, f"failback watch {machine}")


def retry(
    machine: RunningMachine,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Try the blocked step again, after you have repaired what blocked it.

    Example:

        failback show app01        # says what blocks it

        failback retry app01

    Next: `failback watch app01`.
    """
    envelope = _envelope(by, reason, request_id, signal, as_json)
    message = Retry(**envelope.fields)
    return _say_plainly(machine, "retry", message, envelope, f"failback watch {machine}")


def pause(
    machine: RunningMachine,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Hold the copy. Nothing is lost; the Azure machine goes on serving.

    Example:

        failback pause app01 --reason "backup window"

    Next: `failback resume app01`. To slow it down only: `failback limit app01 20MiB/s`.
    """
    envelope = _envelope(by, reason, request_id, signal, as_json)
    message = Pause(**envelope.fields)
    return _say_plainly(machine, "pause", message, envelope, f"failback resume {machine}")


def resume(
    machine: RunningMachine,
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Go on after a pause, where the copy was held.

    Example:

        failback resume app01

    Next: `failback watch app01`.
    """
    envelope = _envelope(by, reason, request_id, signal, as_json)
    message = Resume(**envelope.fields)
    return _say_plainly(machine, "resume", message, envelope, f"failback watch {machine}")


def limit(
    machine: RunningMachine,
    rate: Annotated[
        str, typer.Argument(metavar="RATE", help="For example 100MiB/s, 200Mbit/s or `none`.")
    ],
    by: By = None,
    reason: Reason = "",
    request_id: RequestId = None,
    signal: AsSignal = False,
    as_json: AsJson = False,
) -> int:
    """Change the bandwidth limit; running copies obey within seconds.

    The limit holds for all disks of the machine together. `none` lifts it.

    Example:

        failback limit app01 100MiB/s

        failback limit app01 none

    Next: `failback watch app01` shows the rates.
    """
    envelope = _envelope(by, reason, request_id, signal, as_json)
    message = SetLimits(bandwidth_limit=_rate(rate), **envelope.fields)
    return _say_plainly(machine, "set_limits", message, envelope, f"failback watch {machine}")


def _rate(text: str) -> int | None:
    if text.lower() == "none":
        return None
    try:
        rate = int(parse_size(text))
    except ValueError as error:
        raise InvalidConfiguration(
            f"{text!r} is no rate.", hint="Write for example 100MiB/s, 200Mbit/s, or none."
        ) from error
    if rate <= 0:
        raise InvalidConfiguration(
            "A limit of zero would hold the copy.", hint="Use `failback pause` for that."
        )
    return rate


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
    envelope = _envelope(by, reason, request_id, signal, as_json)
    wait = wait and not signal

    async def send() -> tuple[Reply | None, list[VerificationRecord]]:
        client = await connect()
        before = await read_state(client, machine) if wait else None
        message = Verify(**envelope.fields)
        reply = await _send(client, machine, "verify", message, envelope)
        if before is None or reply is None:
            return reply, []
        if reply.repeated:
            return reply, before.verifications
        return reply, await _outcome(client, machine, before.verifications)

    reply, records = asyncio.run(send())
    _tell(
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
