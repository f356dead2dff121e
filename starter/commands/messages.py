"""The everyday words to a run: `run-failover`, `retry`, `pause`, `resume` and `limit`. Each is sent
as an update, or with --signal as a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from models.errors import InvalidConfiguration
from models.messages import Pause, Resume, Retry, RunFailover, SetLimits
from models.units import parse_size
from starter.commands.sending import AsSignal, Reason, RequestId, envelope_for, say_plainly
from starter.options import AsJson, By, RunningMachine


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    named: dict[str, Callable[..., int]] = {
        "run-failover": run_failover,
        "retry": retry,
        "pause": pause,
        "resume": resume,
        "limit": limit,
    }
    for name, command in named.items():
        app.command(name, rich_help_panel="Speak to a run")(command)


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
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    message = envelope.message(RunFailover, recovery_point=recovery_point)
    return say_plainly(machine, "run_failover", message, envelope, f"failback watch {machine}")


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
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    message = envelope.message(Retry)
    return say_plainly(machine, "retry", message, envelope, f"failback watch {machine}")


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
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    message = envelope.message(Pause)
    return say_plainly(machine, "pause", message, envelope, f"failback resume {machine}")


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
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    message = envelope.message(Resume)
    return say_plainly(machine, "resume", message, envelope, f"failback watch {machine}")


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
    envelope = envelope_for(by, reason, request_id, signal, as_json)
    message = envelope.message(SetLimits, bandwidth_limit=_rate(rate))
    return say_plainly(machine, "set_limits", message, envelope, f"failback watch {machine}")


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
